"""Forgetting runs: by age or size, with their screenshots."""

from __future__ import annotations

import time

from ..store import Store

DAY = 86_400


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
