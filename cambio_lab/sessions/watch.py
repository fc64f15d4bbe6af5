"""News of all sessions for one listener: each session's newest summary, never a backlog of old ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol, Self


class Described(Protocol):
    """A session, or one that is being made."""

    @property
    def id(self) -> str: ...

    def describe(self) -> dict[str, Any]: ...


class Watch:
    """An asynchronous iterator of ``Session.describe()`` bodies; close it with :meth:`close`.

    It holds at most one entry for each session that changed, so a slow listener misses intermediate states and
    nothing else.
    """

    def __init__(self, watches: set[Watch], sessions: Iterable[Described]) -> None:
        self._watches = watches
        self._changed: dict[str, Described] = {session.id: session for session in sessions}
        self._wake = asyncio.Event()
        self._closed = False
        watches.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._closed:
            if self._changed:
                session = self._changed.pop(next(iter(self._changed)))
                return session.describe()
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    def tell(self, session: Described) -> None:
        self._changed[session.id] = session
        self._wake.set()

    def close(self) -> None:
        """Idempotent; whoever waits in this watch gets its end."""
        self._closed = True
        self._watches.discard(self)
        self._wake.set()
