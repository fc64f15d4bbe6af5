"""Records what passes between the SDK and the service, without holding up a byte of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx2

from ..http import pieces_of

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
