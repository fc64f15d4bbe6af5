"""How much may be recorded, of one session and in all, and forgetting runs: by age or size, with their screenshots.

Limits are said before they are reached.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any, Protocol

from ..agent.gate import LimitReached
from ..settings import Settings
from ..store import Store

logger = logging.getLogger(__name__)
DAY = 86_400
MB = 1_000_000
WARN_AT = 0.8
"""Of a session's limit, and of the limit of all records."""
PRUNE_TO = 0.9
"""Oldest runs are removed until the records take at most this share of their limit."""
FRESH_SECONDS = 60.0
"""Screenshots that were stored this recently are spared: a running session may be about to name them."""
Warning = tuple[str, dict[str, Any]]
"""Words for people, and metadata of a status event."""


class Recording(Protocol):
    """A live session, as far as its record goes."""

    record_bytes: int

    async def record_grew(self, total: int) -> None: ...

    async def warn(self, words: str, metadata: dict[str, Any]) -> None: ...


class Quota:
    """The limits of one server. ``full`` is true while all records together take more than they may."""

    def __init__(self, settings: Settings) -> None:
        self._session_bytes = settings.max_record_mb * MB
        self._total_bytes = settings.max_records_mb * MB
        self.full = False
        self._warned = False

    def problem(self, session_bytes: int) -> LimitReached | None:
        """Return the limit that a session with this much recorded has reached, or ``None``."""
        if self._session_bytes and session_bytes >= self._session_bytes:
            words = f"The recording of this session has reached its limit of {self._session_bytes / MB:g} MB."
            return LimitReached("max_record_mb", words)
        if self.full:
            words = f"All recordings together have reached their limit of {self._total_bytes / MB:g} MB."
            return LimitReached("max_records_mb", words)
        return None

    def warning(self, before: int, now: int) -> Warning | None:
        """Return what to say when a session's record grew past :data:`WARN_AT` of its limit."""
        near = self._session_bytes * WARN_AT
        if not self._session_bytes or not before < near <= now:
            return None
        words = f"The recording takes {now / MB:.1f} MB; the turn ends at {self._session_bytes / MB:g} MB."
        return words, _metadata("max_record_mb", now, self._session_bytes)

    async def look(self, store: Store, sessions: Iterable[Recording]) -> None:
        """Measure all records. Warn when their limit is near; at the limit remove the oldest runs, else end turns."""
        if not self._total_bytes:
            return
        total = await _size(store)
        if total >= self._total_bytes:
            await self._prune(store)
            total = await _size(store)
            self.full = total >= self._total_bytes
        else:
            self.full = False
        near = total >= self._total_bytes * WARN_AT
        for session in list(sessions):
            if self.full:
                await session.record_grew(session.record_bytes)
            elif near and not self._warned:
                await session.warn(*await self._total_warning(store, total))
        if near and not self._warned:
            logger.warning("records near their limit: bytes=%d limit=%d", total, self._total_bytes)
        self._warned = near

    async def _prune(self, store: Store) -> None:
        removed = await prune(store, most=int(self._total_bytes * PRUNE_TO))
        freed = await sweep(store, FRESH_SECONDS)
        logger.warning("records at their limit; oldest runs removed: runs=%d bytes=%s", removed, freed)

    async def _total_warning(self, store: Store, total: int) -> Warning:
        """Name the run that is removed first, so that a person can pin or export it in time."""
        first = next((session_id for session_id, _ in await store.sessions.removable()), None)
        words = f"All recordings take {total / MB:.0f} MB of {self._total_bytes / MB:g} MB; "
        words += f"the oldest run, {first}, is removed first." if first else "no ended run is left to remove."
        return words, _metadata("max_records_mb", total, self._total_bytes) | {"next_removed": first}


def _metadata(limit: str, now: int, most: float) -> dict[str, Any]:
    return {"event": "record_limit_near", "limit": limit, "bytes": now, "limit_bytes": int(most)}


async def _size(store: Store) -> int:
    return await store.screenshots.disk_bytes() + await store.database.live_bytes()


async def prune(store: Store, *, days: float = 0.0, most: int = 0) -> int:
    """Remove runs that ended more than ``days`` ago, then the oldest until the rest takes at most ``most`` bytes.

    0 is no limit; an active or pinned run is never removed. Returns how many were removed; their space
    is given back by :func:`sweep` and ``store.database.compact``.
    """
    ended = await store.sessions.removable()
    old = [session_id for session_id, end in ended if days and end < time.time() - days * DAY]
    for session_id in old:
        await store.sessions.remove(session_id)
    if not most:
        return len(old)
    return len(old) + await _shrink(store, [session_id for session_id, _ in ended[len(old) :]], most)


async def sweep(store: Store, fresh: float = 0.0) -> int | None:
    """Remove screenshots that no session names any more; return the bytes that this freed.

    ``None``, and nothing is removed, while a damaged database lies beside ours: what can be saved of it names
    screenshots. While sessions run, ``fresh`` spares what they stored within that many seconds.
    """
    if store.damaged():
        return None
    return await store.screenshots.sweep(await store.screenshot_uses(), fresh)


async def _shrink(store: Store, ended: list[str], most: int) -> int:
    """Remove the first of ``ended`` until the rest fits; return how many. Deleted rows count as free at once."""
    sizes, uses = await store.screenshots.sizes(), await store.screenshot_uses()
    size = sum(sizes.get(digest, 0) for digest in uses)
    for number, session_id in enumerate(ended):
        if size + await store.database.live_bytes() <= most:
            return number
        for digest in await store.screenshots_of(session_id):
            uses[digest] -= 1
            if not uses[digest]:
                size -= sizes.get(digest, 0)
        await store.sessions.remove(session_id)
    return len(ended)
