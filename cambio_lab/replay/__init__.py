"""Recorded requests to the model: which are answered, with what, and where a new one differs; the transport."""

from __future__ import annotations

import asyncio
import base64
import json
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2

from ..agent.http import MadeReply, pieces_of
from ..errors import BundleRefused, ReplayDiverged
from ..recording import Contents, Json
from ..recording.placeholders import readable
from ..recording.run_file import check_json
from ..recording.schema import Message, check

LONGEST = 160
_END = b"message_stop"
"""The last event of a reply that was streamed whole."""


def difference(recorded: bytes, now: bytes) -> str | None:
    """What is different about ``now`` (both without images), or ``None`` when it asks the same.

    The model and the conversation count. This package's own prompt, its tools, limits and cache markers may change
    with a new version without making a recording useless.
    """
    try:
        old, new = parse_request(readable(recorded)), parse_request(readable(now))
    except BundleRefused:
        return "the request is not the recorded one"
    if old.get("model") != new.get("model"):
        return f"the run asks the model {new.get('model')}, the recording has {old.get('model')}"
    had, asked = old.get("messages", []), new.get("messages", [])
    for index, (before, after) in enumerate(zip(had, asked, strict=False)):
        before, after = unmarked(before), unmarked(after)
        if before != after:
            return _message(index, before, after)
    if len(had) != len(asked):
        return f"the conversation has {len(asked)} messages, the recording has {len(had)} at this point"
    return None


def parse_request(body: bytes) -> Json:
    """Return the JSON of a request. :class:`~cambio_lab.errors.BundleRefused` when it is not one."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise BundleRefused("a recorded request is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("messages", []), list):
        raise BundleRefused("a recorded request is not one to the Messages API")
    return request


def conversation(body: bytes) -> list[dict[str, Any]]:
    """Return the messages of a recorded request without cache markers, checked like those of a run file."""
    messages: list[dict[str, Any]] = unmarked(parse_request(body).get("messages", []))
    for number, message in enumerate(messages, 1):
        where = f"message {number} of a recorded request"
        check_json(message, where)
        if not isinstance(message, dict):
            raise BundleRefused(f"{where} is not an object")
        check(Message, message, where)
    return messages


def _message(index: int, old: dict[str, Any], new: dict[str, Any]) -> str:
    if old.get("role") != new.get("role"):
        return f"message {index + 1} is the {new.get('role')}'s, in the recording it is the {old.get('role')}'s"
    for before, after in zip(_blocks(old), _blocks(new), strict=False):
        if before == after:
            continue
        if new["role"] == "user" and after.get("type") == "text" and before.get("type") == "text":
            return (
                f"the user now asks something that the recording did not: {_short(after['text'])} "
                f"instead of {_short(before['text'])}"
            )
        if after.get("type") == "tool_result":
            return f"the result of call {after.get('tool_use_id')} is {_result(after)} instead of {_result(before)}"
        return f"message {index + 1} has {_short(json.dumps(after))} instead of {_short(json.dumps(before))}"
    return f"message {index + 1} has {len(_blocks(new))} blocks instead of {len(_blocks(old))}"


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text", "text": str(content)}]


def unmarked(value: Any) -> Any:
    """A copy without cache markers."""
    if isinstance(value, dict):
        return {name: unmarked(inner) for name, inner in value.items() if name != "cache_control"}
    return [unmarked(inner) for inner in value] if isinstance(value, list) else value


def _result(block: dict[str, Any]) -> str:
    parts = block.get("content") or []
    if isinstance(parts, str):
        return _short(parts)
    shown = [part for part in parts if isinstance(part, dict)]
    words = (part.get("text") or f"image {part.get('source', {}).get('data', '')[7:19]}" for part in shown)
    return _short(", ".join(words))


def _short(text: str) -> str:
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def response_bytes(exchange: Json) -> bytes:
    """A recorded reply's bytes."""
    response = exchange.get("response") or ""
    if isinstance(response, dict):
        return base64.b64decode(response["base64"])
    return str(response).encode()


class Bodies:
    """The recorded requests with these indexes, read in order: one body is in memory, not all."""

    def __init__(self, contents: Contents, kept: Sequence[int]) -> None:
        wanted = set(kept)
        self._bodies = (body for index, body in enumerate(contents.bodies()) if index in wanted)
        self._last: tuple[int, bytes] = (-1, b"")
        self._count = len(kept)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        while self._last[0] < index:
            self._last = (self._last[0] + 1, next(self._bodies))
        return self._last[1]


def given(contents: Contents, *, every: bool) -> list[int]:
    """Return the indexes of the replies to give; without ``every``, not those of requests that were sent again.

    What the loop waited for then need not be waited for twice.
    """
    exchanges, again = contents.exchanges, [False] * len(contents.exchanges)
    before = None
    for index, body in enumerate(contents.bodies()):
        if index:
            earlier = exchanges[index - 1]
            again[index - 1] = body == before and earlier.get("error") != "cancelled" and not _whole(earlier)
        before = body
    return [index for index in range(len(exchanges)) if every or not again[index]]


def cut_replies(contents: Contents) -> list[Json]:
    """Return the exchanges, those whole replies cut before their end that a stop kept the loop from taking.

    A reply is read ahead, so its record may be complete although the turn ended inside it.
    """
    exchanges = list(contents.exchanges)
    starts = [exchange.get("started_at", 0.0) for exchange in exchanges]
    before, asked = 0.0, None
    for event in contents.events:
        if event["kind"] == "RequestSent":
            asked = before  # the exchange may begin a moment before the event
        elif event["kind"] == "ModelReplied":
            asked = None
        elif event["kind"] in ("TurnFinished", "TurnFailed"):
            last = bisect_right(starts, event["time"]) - 1
            if asked is not None and last >= 0 and starts[last] >= asked and _whole(exchanges[last]):
                exchanges[last] = _without_end(exchanges[last])
            asked = None
        before = event["time"]
    return exchanges


def _whole(exchange: Json) -> bool:
    """Return whether the reply came to its end."""
    complete = exchange.get("status") == 200 and not exchange.get("error")
    return complete and _END in response_bytes(exchange)


def _without_end(exchange: Json) -> Json:
    """Return the exchange as if it had been cancelled just before the reply's end."""
    shown = response_bytes(exchange).rpartition(_END)[0]
    return {**exchange, "error": "cancelled", "response": {"base64": base64.b64encode(shown).decode()}}


PACED_PIECES = 40  # of a body at recorded pace
Compare = Callable[[int, Sequence[bytes]], str | None]
"""What is different about request number ``n`` (from 0) with this body (in pieces), or ``None``."""


class ReplayTransport(httpx2.AsyncBaseTransport):
    """Gives the replies of recorded exchanges in order.

    ``compare`` is asked about each request; when it finds a difference, or the record is at its end,
    :class:`~cambio_lab.errors.ReplayDiverged` says so, and every request after it is answered the same. ``pace`` 0
    answers at once, 1 as slowly as it went. ``cut`` is called where a person stopped the recorded reply.
    """

    def __init__(
        self, replies: Sequence[Json], compare: Compare, *, pace: float = 0.0, cut: Callable[[], None] | None = None
    ) -> None:
        self.divergence: ReplayDiverged | None = None
        self.position = 0
        self._replies = replies
        self._compare = compare
        self._pace = pace
        self._cut = cut

    @property
    def exhausted(self) -> bool:
        """Whether every recorded reply was given."""
        return self.position == len(self._replies)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body, at = await pieces_of(request), self.position
        if self.divergence is None:
            reason: str | None = f"the run asks the model a {at + 1}. time, the recording ends after {at}"
            if not self.exhausted:
                reason = await asyncio.to_thread(self._compare, at, body)
            if reason is not None:
                self.divergence = ReplayDiverged(reason, hint="Record the run again (mode `all`) if this is meant.")
        if self.divergence is not None:
            raise self.divergence
        recorded = self._replies[self.position]
        self.position += 1
        await asyncio.sleep(self._pace * (recorded.get("first_byte_ms") or 0.0) / 1000)
        if recorded.get("status") is None:
            if recorded.get("error") == "cancelled":
                await self._stopped()
            raise httpx2.ConnectError(recorded.get("error") or "no reply", request=request)
        stream = MadeReply(self._body(recorded, request))
        return httpx2.Response(recorded["status"], headers=recorded["headers"], stream=stream, request=request)

    async def _body(self, recorded: Json, request: httpx2.Request) -> AsyncIterator[bytes]:
        body, error = response_bytes(recorded), recorded.get("error")
        seconds = ((recorded.get("total_ms") or 0.0) - (recorded.get("first_byte_ms") or 0.0)) / 1000
        size = max(1, -(-len(body) // PACED_PIECES) if self._pace else len(body))
        for start in range(0, len(body), size):
            yield body[start : start + size]
            if self._pace:
                await asyncio.sleep(self._pace * max(0.0, seconds) / PACED_PIECES)
        if error == "cancelled":
            await self._stopped()
        if error is not None:
            raise httpx2.ReadError(error, request=request)

    async def _stopped(self) -> None:
        """Stop where it was stopped in the recording, and wait until that cancels this."""
        if self._cut is not None:
            self._cut()
        await asyncio.Event().wait()
