"""Answers requests from a record instead of the network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import httpx2

from ...errors import ReplayDiverged
from ..http import pieces_of
from .sse import Chunks

PIECES = 40  # of a body at recorded pace


@dataclass(frozen=True)
class Recorded:
    """One recorded reply. ``error`` as in :class:`~cambio_lab.agent.transports.record.Exchange`."""

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
        size = max(1, -(-len(recorded.response) // PIECES)) if self._pace else max(1, len(recorded.response))
        pause = self._pace * max(0.0, recorded.total_ms - recorded.first_byte_ms) / 1000 / PIECES
        for start in range(0, len(recorded.response), size):
            yield recorded.response[start : start + size]
            if self._pace:
                await asyncio.sleep(pause)
        if recorded.error == "cancelled":
            await self._stopped()
        if recorded.error is not None:
            raise httpx2.ReadError(recorded.error, request=request)

    async def _stopped(self) -> None:
        """Here it was stopped; until whoever did it leaves, as then."""
        if self._cut is not None:
            self._cut()
        await asyncio.Event().wait()
