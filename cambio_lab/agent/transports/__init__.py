"""What passes between the SDK and the service: recorded without delaying a byte of it, and replayed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx2

from ...errors import ReplayDiverged
from ..http import pieces_of

PACED_PIECES = 40  # of a body at recorded pace
KEPT_HEADERS = frozenset(
    {"content-type", "content-encoding", "request-id", "retry-after", "retry-after-ms", "x-should-retry"}
)
"""Of a reply. Of a request none is kept: that is where the keys are."""


@dataclass(slots=True)
class Exchange:
    """One request and as much of its reply as came.

    ``error`` names in a word what went wrong below HTTP, or ``cancelled`` when we left before the end; times are in
    milliseconds from the moment the request left.
    """

    started_at: float
    body: Sequence[bytes]
    """In pieces."""
    number: int = 0
    """Given by the sink."""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    response: bytes = b""
    first_byte_ms: float | None = None
    total_ms: float | None = None
    error: str | None = None


class ExchangeSink(Protocol):
    """Where exchanges go. Neither method may raise or take long: the model's reply waits meanwhile."""

    def sent(self, exchange: Exchange) -> None:
        """The request is leaving."""

    async def ended(self, exchange: Exchange) -> None:
        """The reply is complete, or there will be no more of it. Called before the reader is told."""


class RecordingTransport(httpx2.AsyncBaseTransport):
    """Passes requests to ``inner`` and tells ``sink`` about each."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, sink: ExchangeSink) -> None:
        self._inner = inner
        self._sink = sink

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST":
            return await self._inner.handle_async_request(request)
        exchange = Exchange(time.time(), await pieces_of(request))
        began = time.perf_counter()
        self._sink.sent(exchange)
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException as error:
            exchange.error = _word(error)
            exchange.total_ms = _since(began)
            await self._sink.ended(exchange)
            raise
        exchange.status = response.status_code
        exchange.headers = {name: value for name, value in response.headers.items() if name in KEPT_HEADERS}
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Tee(response.stream, exchange, self._sink, began)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Tee(httpx2.AsyncByteStream):
    """A reply's body, noted as it is read."""

    def __init__(self, inner: httpx2.AsyncByteStream, exchange: Exchange, sink: ExchangeSink, began: float) -> None:
        self._inner = inner
        self._exchange = exchange
        self._sink = sink
        self._began = began
        self._chunks: list[bytes] = []
        self._over = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                if self._exchange.first_byte_ms is None:
                    self._exchange.first_byte_ms = _since(self._began)
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
            if not self._over:
                self._exchange.error = self._exchange.error or "cancelled"
                await self._end()

    async def _end(self) -> None:
        if not self._over:
            self._over = True
            self._exchange.total_ms = _since(self._began)
            self._exchange.response = b"".join(self._chunks)
            await self._sink.ended(self._exchange)


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _word(error: BaseException) -> str:
    return "cancelled" if type(error).__name__ == "CancelledError" else type(error).__name__


@dataclass(frozen=True)
class Recorded:
    """One recorded reply. ``error`` as in :class:`Exchange`."""

    status: int | None
    headers: dict[str, str] = field(default_factory=dict)
    response: bytes = b""
    first_byte_ms: float = 0.0
    total_ms: float = 0.0
    error: str | None = None


Compare = Callable[[int, Sequence[bytes]], str | None]
"""What is different about request number ``n`` (from 0) with this body (in pieces), or ``None``."""


class ReplayTransport(httpx2.AsyncBaseTransport):
    """Gives the recorded replies in order.

    ``compare`` is asked about each request; when it finds a difference, or the record is at its end,
    :class:`~cambio_lab.errors.ReplayDiverged` says so, and every request after it is answered the same. ``pace`` 0
    answers at once, 1 as slowly as it went. ``cut`` is called where a person stopped the recorded reply.
    """

    def __init__(
        self, replies: Sequence[Recorded], compare: Compare, *, pace: float = 0.0, cut: Callable[[], None] | None = None
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
        body = await pieces_of(request)
        if self.divergence is None:
            reason = await self._difference(body)
            if reason is not None:
                self.divergence = ReplayDiverged(reason, hint="Record the run again (mode `all`) if this is meant.")
        if self.divergence is not None:
            raise self.divergence
        recorded = self._replies[self.position]
        self.position += 1
        await asyncio.sleep(self._pace * recorded.first_byte_ms / 1000)
        if recorded.status is None:
            if recorded.error == "cancelled":
                await self._stopped()
            raise httpx2.ConnectError(recorded.error or "no reply", request=request)
        stream = Chunks(self._body(recorded, request))
        return httpx2.Response(recorded.status, headers=recorded.headers, stream=stream, request=request)

    async def _difference(self, body: Sequence[bytes]) -> str | None:
        if self.exhausted:
            return f"the run asks the model a {self.position + 1}. time, the recording ends after {self.position}"
        return await asyncio.to_thread(self._compare, self.position, body)

    async def _body(self, recorded: Recorded, request: httpx2.Request) -> AsyncIterator[bytes]:
        size = max(1, -(-len(recorded.response) // PACED_PIECES)) if self._pace else max(1, len(recorded.response))
        pause = self._pace * max(0.0, recorded.total_ms - recorded.first_byte_ms) / 1000 / PACED_PIECES
        for start in range(0, len(recorded.response), size):
            yield recorded.response[start : start + size]
            if self._pace:
                await asyncio.sleep(pause)
        if recorded.error == "cancelled":
            await self._stopped()
        if recorded.error is not None:
            raise httpx2.ReadError(recorded.error, request=request)

    async def _stopped(self) -> None:
        """Stop where it was stopped in the recording, and wait until that cancels this."""
        if self._cut is not None:
            self._cut()
        await asyncio.Event().wait()


class Chunks(httpx2.AsyncByteStream):
    """A response body from an iterator of bytes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk
