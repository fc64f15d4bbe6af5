"""What a session records beyond its events: requests and replies to the byte, desktop calls with their results.

The agent waits for none of it: rows go to the store's writer, which commits in order. The rows of a step reach the
writer before the event that ends the step, so after a crash the record of an acknowledged step is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2

from .._version import __version__
from ..agent.http import pieces_of
from ..desktop.base import Desktop, Screenshot
from ..errors import StoreError
from ..store import EventRow, ExchangeRow, Store
from . import OBSERVED, STARTED, calls
from .calls import HUMAN, ClientDesktop, RecordingDesktop
from .placeholders import BodyEncoder, Mask, difference, dump_change, references

if TYPE_CHECKING:
    from ..agent.options import AgentOptions
    from ..agent.tools import ApprovalPolicy

log = logging.getLogger(__name__)
KEPT_HEADERS = frozenset(
    {"content-type", "content-encoding", "request-id", "retry-after", "retry-after-ms", "x-should-retry"}
)
"""Of a reply. Of a request none is kept: that is where the keys are."""


@dataclass
class Exchange:
    """One request and as much of its reply as came.

    ``error`` names in a word what went wrong below HTTP, or ``cancelled`` when we left before the end; times are in
    milliseconds from the moment the request left.
    """

    started_at: float
    body: Sequence[bytes]
    """In pieces."""
    number: int = 0
    """Given by the recorder."""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    response: bytes = b""
    first_byte_ms: float | None = None
    total_ms: float | None = None
    error: str | None = None


Ended = Callable[[Exchange], Coroutine[Any, Any, None]]


class RecordingTransport(httpx2.AsyncBaseTransport):
    """Passes requests to ``inner`` without delaying a byte, and tells ``sent`` and ``ended`` about each.

    Neither may raise or take long. ``ended`` is told when the reply is complete, before its reader is, or broken off.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport, sent: Callable[[Exchange], None], ended: Ended) -> None:
        self._inner = inner
        self._sent = sent
        self._ended = ended

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return await self._inner.handle_async_request(request)
        exchange = Exchange(time.time(), await pieces_of(request))
        began = time.perf_counter()
        self._sent(exchange)
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            exchange.error = _word(error)
            exchange.total_ms = 1000 * (time.perf_counter() - began)
            await self._ended(exchange)
            raise
        exchange.status = response.status_code
        exchange.headers = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Tee(response.stream, exchange, self._ended, began)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Tee(httpx2.AsyncByteStream):
    """A reply's body, noted as it is read."""

    def __init__(self, inner: httpx2.AsyncByteStream, exchange: Exchange, ended: Ended, began: float) -> None:
        self._inner = inner
        self._exchange = exchange
        self._ended = ended
        self._began = began
        self._chunks: list[bytes] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                if self._exchange.first_byte_ms is None:
                    self._exchange.first_byte_ms = 1000 * (time.perf_counter() - self._began)
                self._chunks.append(chunk)
                yield chunk
        except GeneratorExit:
            raise  # the reader left; aclose() follows and says so
        except BaseException as error:
            self._exchange.error = _word(error)
            await self._end()
            raise
        await self._end()

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            if self._exchange.total_ms is None:
                self._exchange.error = self._exchange.error or "cancelled"
                await self._end()

    async def _end(self) -> None:
        if self._exchange.total_ms is None:
            self._exchange.total_ms = 1000 * (time.perf_counter() - self._began)
            self._exchange.response = b"".join(self._chunks)
            await self._ended(self._exchange)


def _word(error: BaseException) -> str:
    return "cancelled" if type(error).__name__ == "CancelledError" else type(error).__name__


class HumanCall(NamedTuple):
    """What a person did, as the call to a desktop that does the same; ``at`` is when, in epoch seconds."""

    method: str
    arguments: Mapping[str, Any]
    at: float


class Recorder:
    """Records one session. Give the agent :meth:`desktop` and a client over :meth:`transport`."""

    def __init__(self, store: Store, session_id: str, *, first: int = 1) -> None:
        """``first`` is the number of the first exchange: one more than what a restarted session has already."""
        self._store = store
        self._session_id = session_id
        self._next = first
        self._encoder = BodyEncoder()
        self._calls = 0
        self._previous: tuple[int | None, bytes] = (None, b"")
        self._encoding: dict[int, asyncio.Task[tuple[str, bytes, list[str]]]] = {}
        self._last: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, store: Store, session_id: str) -> Recorder:
        """Return a recorder that continues the record of this session."""
        return cls(store, session_id, first=await store.exchanges.count(session_id) + 1)

    def transport(self, inner: httpx2.AsyncBaseTransport) -> RecordingTransport:
        return RecordingTransport(inner, self.sent, self.ended)

    def desktop(self, desktop: Desktop) -> Desktop:
        """Return ``desktop`` for the agent: each of its calls is recorded."""
        return RecordingDesktop(desktop, partial(self._note, OBSERVED), self._count)

    def client_desktop(self, desktop: Desktop, mask: Mask) -> Desktop:
        """Return ``desktop`` for clients: files, clipboard and screenshots are recorded, viewers are not."""
        return ClientDesktop(desktop, partial(self._note, OBSERVED), self._keep_screenshot, self._count, mask)

    async def begin(
        self, facts: Mapping[str, Any] | None, *, options: AgentOptions, desktop: Desktop, approval: ApprovalPolicy
    ) -> None:
        """Note what this recording is made with: versions, the agent's options, its desktop, and any other ``facts``.

        A replay sets the agent up with the same; no key and no address of the service is among them.
        """
        environment: dict[str, Any] = {"cambio_lab": __version__, "anthropic": version("anthropic"), **(facts or {})}
        environment["options"] = {name: value for name, value in asdict(options).items() if name != "base_url"}
        environment["approval"] = sorted(approval) if isinstance(approval, frozenset) else approval
        environment["desktop"] = {
            "display": list(desktop.size),
            "image_digest": desktop.image_digest,
            "isolated": desktop.isolated,
            "browser": desktop.has_browser,
        }
        await self._note(STARTED, environment)

    async def aclose(self) -> None:
        """Wait until every row is on disk, or its loss is in the log."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # From the transport

    def sent(self, exchange: Exchange) -> None:
        exchange.number, self._next = self._next, self._next + 1
        task = asyncio.create_task(self._encode(exchange, self._last))
        self._encoding[exchange.number], self._last = task, task
        self._keep(task)

    async def ended(self, exchange: Exchange) -> None:
        try:
            digest, request, screenshots = await asyncio.shield(self._encoding.pop(exchange.number))
        except Exception:
            log.exception("session %s: request %d could not be recorded", self._session_id, exchange.number)
            return
        values = {**vars(exchange), "request_sha256": digest, "request": request}
        del values["body"]
        row = ExchangeRow(self._session_id, **values)
        await self._submit(self._store.write(self._store.exchanges.appending(row, screenshots)))

    async def _encode(self, exchange: Exchange, before: asyncio.Task[Any] | None) -> tuple[str, bytes, list[str]]:
        if before is not None and not before.done():
            await asyncio.wait({before})
        return await asyncio.to_thread(self._encode_now, exchange.number, exchange.body)

    def _encode_now(self, number: int, body: Sequence[bytes]) -> tuple[str, bytes, list[str]]:
        """In a thread while the model thinks. The whole body's digest is in ``RequestSent``."""
        made = self._encoder.encode(body)
        digest = hashlib.sha256(made).hexdigest()
        base, before = self._previous
        change = difference(base, before, made)
        self._previous = (number, made)
        return digest, dump_change(change), references(made)

    # From the desktop

    async def human(self, step: int, call: HumanCall | None, screenshot: Screenshot | None) -> None:
        """Record what a person did, and saw then, as calls that a replay on a desktop can repeat."""
        done: list[tuple[HumanCall, Mapping[str, Any]]] = [] if call is None else [(call, {"none": True})]
        if screenshot is not None:
            done.append((HumanCall("screenshot", {}, time.time()), calls.encode(screenshot)))
        for (method, given, at), result in done:
            arguments = calls.encode_arguments(dict(given))
            about = {"by": HUMAN, "step": step, "method": method, "arguments": arguments, "at": at, "ms": 0.0}
            await self._note(OBSERVED, {**about, "number": self._count(), "result": result})

    def _count(self) -> int:
        """Number a call as it begins: calls are stored as they end, and may overlap."""
        self._calls += 1
        return self._calls

    async def _note(self, kind: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
        row = EventRow(self._session_id, None, None, time.time(), kind, None, text)
        await self._submit(self._store.events.append([row]))

    async def _keep_screenshot(self, screenshot: Screenshot) -> None:
        await self._submit(self._put(screenshot))

    async def _put(self, screenshot: Screenshot) -> None:
        await self._store.screenshots.put(screenshot.data, screenshot.media_type)
        await self._store.write(self._store.sessions.growing(self._session_id, len(screenshot.data)))

    async def _submit(self, write: Coroutine[Any, Any, Any]) -> None:
        """Begin ``write`` and let it reach the writer's queue; do not wait for the disk."""
        self._keep(asyncio.create_task(write))
        await asyncio.sleep(0)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        # what comes next must not build on what is not there
        self._previous = (None, b"")
        if isinstance(error, StoreError):
            log.error("session %s: a part of its record is lost: %s", self._session_id, error.describe())
        else:
            log.error("session %s: a part of its record is lost", self._session_id, exc_info=error)
