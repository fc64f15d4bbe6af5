"""The HTTP client under the SDK: prepared bodies out, bounded replies in; and replies that no service made."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import httpx2

from .reply import Sent, Slices, too_long
from .service_errors import BrokenReply, not_messages
from .tools import COMPUTER
from .transcript import OUTGOING, Body

PIECES = "cambio_lab.pieces"
"""The extension of a request that holds its body as it was prepared, for transports that need not join megabytes."""
PIECE = 64 * 1024
MAX_REPLY_BYTES = 40_000_000
MAX_EVENT_BYTES = 6_500_000
HEAD = 2_000
BOM = b"\xef\xbb\xbf"
BLANK = BOM + b" \r\n\t"
NO_MESSAGES = b'"messages":[]'
COMMA = b","
NO_USAGE = {"input_tokens": 0, "output_tokens": 0}
DELTA = 16  # characters of one text delta


def fill(content: bytes, body: Body) -> tuple[Chunks, Sent]:
    """Return the body that the SDK made without messages, with them; each was serialised once, long before."""
    head, found, tail = content.partition(NO_MESSAGES)  # the SDK writes it before anything that a user named
    assert found, "the SDK sends messages"
    chunks = [head + NO_MESSAGES[:-1]]
    for index, message in enumerate(body.messages):
        if index:
            chunks.append(COMMA)
        chunks.append(message)
    chunks.append(NO_MESSAGES[-1:] + tail)
    whole = Chunks(chunks)
    return whole, Sent(body.hasher.digest(chunks), whole.size, body.images)


async def pieces_of(request: httpx2.Request) -> Sequence[bytes]:
    """A request's body, in the pieces it was made of (the same objects from one request to the next) or in one."""
    pieces: Sequence[bytes] | None = request.extensions.get(PIECES)
    return (await request.aread(),) if pieces is None else pieces


class Chunks:
    """A body that is sent piece by piece, so that its headers leave before its megabytes are copied once more."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.pieces = chunks
        self.size = sum(map(len, chunks))

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        small: list[bytes] = []
        waiting = 0
        for chunk in self.pieces:
            small.append(chunk)
            waiting += len(chunk)
            if waiting >= PIECE:
                yield b"".join(small) if len(small) > 1 else chunk
                small, waiting = [], 0
        if small:
            yield b"".join(small)


def timeouts(stall: float) -> httpx2.Timeout:
    return httpx2.Timeout(connect=6.0, read=stall, write=max(stall, 60.0), pool=30.0)


def http_class(base: type[Any]) -> Any:
    """Return ``base``, the SDK's HTTP client, with bodies from :data:`OUTGOING` and bounded replies."""

    class PreparedClient(base):  # type: ignore[misc]
        def __init__(self, *, secrets: Callable[[], list[str]], signed: bool, transport: Any, **options: Any) -> None:
            self._cambio_signed, self._cambio_secrets = signed, secrets
            if transport is not None:
                options["transport"] = transport
            super().__init__(**options)

        def build_request(self, method: Any, url: Any, *, content: Any = None, **options: Any) -> httpx2.Request:
            if (outgoing := OUTGOING.get()) is not None and isinstance(content, bytes):
                body, tell = outgoing
                whole, sent = fill(content, body)
                if self._cambio_signed:  # AWS signs the body, so it must be there in one piece
                    content = bytes(whole)
                else:
                    content, options["headers"]["content-length"] = whole, str(whole.size)
                    options["extensions"] = {**(options.get("extensions") or {}), PIECES: whole.pieces}
                tell(sent)
            request: httpx2.Request = super().build_request(method, url, content=content, **options)
            return request

        async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
            response: httpx2.Response = await super().send(request, **options)
            if response.status_code == 200 and request.method == "POST":
                kind = response.headers.get("content-type", "text/event-stream")
                # text/event-stream, or AWS's application/vnd.amazon.eventstream; some gateways name another type
                events, plain = "event" in kind, "content-encoding" not in response.headers and "amazon" not in kind
                if not response.is_closed and isinstance(response.stream, httpx2.AsyncByteStream):
                    whole = Bounded(response.stream, refused=partial(self._cambio_refused, response) if plain else None)
                    events = whole.events = events or (plain and await whole.begins_with_event())
                    response.stream = whole
                if not events:
                    raise self._cambio_refused(response, await _first_words(response))
            return response

        def _cambio_refused(self, response: httpx2.Response, words: str) -> Exception:
            return not_messages(response, words, self._cambio_secrets())

    return PreparedClient


async def _first_words(response: httpx2.Response) -> str:
    """Return the beginning of an answer, and close it."""
    text = ""
    async for chunk in response.aiter_text():
        text += chunk
        if len(text) > 2_000:
            break
    await response.aclose()
    return text


class Bounded(httpx2.AsyncByteStream):
    """Ends a reply without end: too many bytes, or an event that never ends.

    Where the bytes are events as text, ``refused`` makes the error for an answer that has none.
    """

    def __init__(self, inner: httpx2.AsyncByteStream, *, refused: Callable[[str], Exception] | None) -> None:
        self._inner = inner
        self._chunks = aiter(inner)
        self._first = b""
        self._refused = refused
        self._waiting: list[bytes] = []
        self.events = True
        """Whether this is a stream of events; other bytes are passed on as they come."""

    async def begins_with_event(self) -> bool:
        """Return whether what comes first looks like an event."""
        while not self._first.strip(BLANK) and (chunk := await anext(self._chunks, b"")):
            self._first += chunk
        return self._first.lstrip(BLANK).startswith((b"event:", b"data:", b":"))

    async def _all(self) -> AsyncGenerator[bytes, None]:
        yield self._first
        async for chunk in self._chunks:
            yield chunk

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        head, seen, total = b"", False, 0
        slices = Slices()
        async for chunk in self._all():
            if not self.events:
                yield chunk
                continue
            if not total:
                chunk = chunk.removeprefix(BOM)
            total += len(chunk)
            if total > MAX_REPLY_BYTES:
                raise too_long(f"{MAX_REPLY_BYTES} bytes")
            ready = chunk
            if self._refused is not None:
                if not seen:
                    head = (head + chunk)[:HEAD]
                    seen = b"data:" in head or len(head) == HEAD
                ready = self._complete(chunk)
            if ready:
                yield ready
            await slices.rest()
        if self.events and self._refused is not None and not seen:
            raise self._refused(head.decode(errors="replace")) if head.strip() else BrokenReply("it was empty")
        if self._waiting:
            yield b"".join(self._waiting)

    def _complete(self, chunk: bytes) -> bytes:
        """Return what has arrived up to the last blank line: the SDK's search for it is quadratic in a piece."""
        ends = [at + len(blank) for blank in (b"\n\n", b"\r\n\r\n") if (at := chunk.rfind(blank)) >= 0]
        end = max(ends, default=len(chunk) if chunk.startswith((b"\n", b"\r\n")) else 0)
        if not end:
            self._waiting.append(chunk)
            if sum(map(len, self._waiting)) > MAX_EVENT_BYTES:
                raise too_long(f"{MAX_EVENT_BYTES} bytes in one event")
            return b""
        ready = b"".join([*self._waiting, chunk[:end]])
        self._waiting = [chunk[end:]] if chunk[end:] else []
        return ready

    async def aclose(self) -> None:
        await self._inner.aclose()


# Replies of transports of ours: the demo model, a client in the place of the model, a policy
class MadeReply(httpx2.AsyncByteStream):
    """A response body from an iterator of bytes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk


def message_response(
    request: httpx2.Request,
    name: str,
    blocks: Sequence[Mapping[str, Any]],
    *,
    model: str = "demo",
    usage: Mapping[str, int] = NO_USAGE,
    pace: float = 0.0,
) -> httpx2.Response:
    """Return a whole reply as the service streams it. ``name`` is in its ids; ``usage`` is reported at both ends."""
    whole = [
        {**block, "id": f"toolu_{name}{number:02d}"} if block["type"] == "tool_use" else block
        for number, block in enumerate(blocks)
    ]
    message = {"id": f"msg_{name}", "type": "message", "role": "assistant", "model": model, "usage": usage}
    headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{name}"}
    return httpx2.Response(200, headers=headers, stream=MadeReply(_events(message, whole, pace)), request=request)


async def _events(message: dict[str, Any], blocks: list[Mapping[str, Any]], pace: float) -> AsyncIterator[bytes]:
    yield event("message_start", message={**message, "content": [], "stop_reason": None, "stop_sequence": None})
    for index, block in enumerate(blocks):
        for chunk in _block_events(index, block):
            yield chunk
            if pace and b"text_delta" in chunk:
                await asyncio.sleep(pace)
    reason = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield event("message_delta", delta=delta, usage=message["usage"])
    yield event("message_stop")


def _block_events(index: int, block: Mapping[str, Any]) -> Iterator[bytes]:
    if block["type"] == "text":
        yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
        for start in range(0, len(block["text"]), DELTA):
            delta = {"type": "text_delta", "text": block["text"][start : start + DELTA]}
            yield event("content_block_delta", index=index, delta=delta)
    else:
        yield event("content_block_start", index=index, content_block={**block, "input": {}})
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def event(name: str, **body: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **body}, ensure_ascii=False)}\n\n".encode()


def error_response(request: httpx2.Request, status: int, kind: str, message: str) -> httpx2.Response:
    """Return the service's error envelope; ``x-should-retry: false`` because a transport's answer does not change."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_local"}
    return httpx2.Response(status, json=body, headers={"x-should-retry": "false"}, request=request)


class DirectedTransport(httpx2.AsyncBaseTransport):
    """Answers the first request of a turn with the calls, the next with "Done.". Costs nothing."""

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []

    def direct(self, calls: Sequence[Mapping[str, Any]], *, toolset: bool) -> None:
        """Set the calls of the next turn, ``{name, input}`` each; ``toolset``: the model knows the newer tool."""
        self._blocks = [
            {"type": "tool_use", "name": call["name"], "input": call["input"], "toolset_name": COMPUTER}
            if toolset
            else {"type": "tool_use", "name": COMPUTER, "input": {**call["input"], "action": call["name"]}}
            for call in calls
        ]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        blocks, self._blocks = self._blocks, []
        return message_response(request, uuid.uuid4().hex[:24], blocks or [{"type": "text", "text": "Done."}], model="")
