"""Share rate limits between sessions: when the model service throttles one session, the others wait, too.

Without this every session would be refused once more. After the wait one request goes first; when it is answered the
others follow, 50 ms apart.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from ..agent.client import ModelClient, ModelRequest
from ..agent.service_errors import Transient
from ..errors import CambioError

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
APART = 0.05
"""Seconds between requests that were held back together."""


class Pace:
    """Shared by every model client of a process. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._until = 0.0
        self._wait = FIRST_WAIT
        self._probe: asyncio.Lock = asyncio.Lock()
        self._held = False
        self._next = 0.0

    @property
    def hold_seconds(self) -> float:
        """How long requests are held back from now; 0 when they are not."""
        return max(0.0, self._until - time.monotonic())

    @asynccontextmanager
    async def request(self) -> AsyncGenerator[bool, None]:
        """Wait until a request may go. Yields whether it goes first; :meth:`answered` or :meth:`hold` follow then."""
        if not self._held:
            yield False
            return
        async with self._probe:
            if self.held:
                await asyncio.sleep(self.hold_seconds)
                yield True
                return
        # The first was answered while we waited.
        now = time.monotonic()
        self._next = max(self._next + APART, now)
        await asyncio.sleep(self._next - now)
        yield False

    def hold(self, seconds: float | None) -> None:
        """The service (or another process that uses it) asks to wait; ``None``: it does not say how long."""
        pause = self._wait if seconds is None else seconds
        if seconds is None:
            self._wait = min(self._wait * 2, LONGEST_WAIT)
        self._until = max(self._until, time.monotonic() + pause)
        self._held = True

    def answered(self) -> None:
        """The service answers again."""
        self._held, self._wait = False, FIRST_WAIT

    @property
    def held(self) -> bool:
        """Whether the service has not answered since it asked to wait."""
        return self._held


class PacedClient(ModelClient):
    """The real client, held back by a shared :class:`Pace`. ``rejected`` is the last error that is not retried."""

    pace: Pace
    rejected: CambioError | None = None

    @classmethod
    def made(cls, pace: Pace, **options: Any) -> PacedClient:
        client = cls(**options)
        client.pace = pace
        return client

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Any, None]:
        async with self.pace.request() as first:
            try:
                async with aclosing(super().stream(request)) as pieces:
                    async for piece in pieces:
                        yield piece
                        if first:
                            self.pace.answered()
            except Transient as problem:
                if not problem.broken:
                    self.pace.hold(problem.retry_after)
                raise
            except CambioError as error:
                self.rejected = error
                raise
