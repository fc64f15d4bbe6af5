"""Forgetting runs: by age, by what they take on disk, and the pictures that nothing names any more."""

from __future__ import annotations

import time
from collections import Counter

from ..store import SessionQuery, SessionRow, Store
from .collect import screenshots_of

ALL = 1_000_000
DAY = 86_400


async def prune(store: Store, *, days: float = 0.0, most: int = 0) -> int:
    """Forget runs that ended more than ``days`` ago, then the oldest until the rest takes at most ``most`` bytes.

    0 is no limit; a run that goes on or that is pinned is never forgotten.
    How many were forgotten; their space is given back by :func:`sweep` and ``store.database.compact``.
    """
    rows = (await store.sessions.page(SessionQuery(limit=ALL))).rows
    ended = sorted((row for row in rows if row.status != "active" and not row.pinned), key=_end)
    old = [row for row in ended if days and _end(row) < time.time() - days * DAY]
    for row in old:
        await store.sessions.remove(row.id)
    if not most:
        return len(old)
    return len(old) + await _shrink(store, ended[len(old) :], most)


async def sweep(store: Store) -> int | None:
    """Remove pictures that no session names any more; the bytes that this freed.

    ``None``, and nothing is removed, while a damaged database lies beside ours: what can be saved of it names pictures.
    """
    if store.damaged():
        return None
    return await store.screenshots.sweep(set(await _uses(store)))


async def _shrink(store: Store, ended: list[SessionRow], most: int) -> int:
    """Forget the first of ``ended`` until the rest fits; how many. What deleted rows took counts as free at once."""
    sizes, uses = await store.screenshots.sizes(), await _uses(store)
    pictures = sum(sizes.get(digest, 0) for digest in uses)
    for number, row in enumerate(ended):
        if pictures + await store.database.live_bytes() <= most:
            return number
        for digest in await screenshots_of(store, row.id):
            uses[digest] -= 1
            if not uses[digest]:
                pictures -= sizes.get(digest, 0)
        await store.sessions.remove(row.id)
    return len(ended)


async def _uses(store: Store) -> Counter[str]:
    """How many sessions name each picture."""
    uses: Counter[str] = Counter()
    for row in (await store.sessions.page(SessionQuery(limit=ALL))).rows:
        uses.update(await screenshots_of(store, row.id))
    return uses


def _end(row: SessionRow) -> float:
    return row.created_at if row.ended_at is None else row.ended_at
