"""In which order the calls to a desktop began, and in which step: they are stored as they end, and may overlap.

The wall clock may be set back while a session runs. Calls therefore carry ``clock``, a monotonic time, as well; those
of clients and of older versions have only ``at``. A monotonic clock means nothing beyond a restart: the record of each
start of the session is ordered by itself.
"""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Iterator, Sequence

from ..store import EventRow
from .contents import Json
from .recorder import OBSERVED, STARTED


def observations(rows: Sequence[EventRow], steps: Sequence[Json]) -> list[Json]:
    """The calls among ``rows`` (in the store's order) as they began, each with the number of its step or ``None``.

    Where the clock had been set back, ``at`` is the latest time until then, as in the session's own times.
    """
    ends = [(row.id, json.loads(row.record or "{}")["step"]) for row in rows if row.kind == "ToolFinished"]
    result, latest, found = [], 0.0, _Steps(steps)
    for row, record in _ordered(rows):
        if record["at"] >= latest:
            step = found.at(record["at"])
        else:  # the steps' times stand still, too: the next one to end was the one
            number = bisect.bisect(ends, (row.id, 0))
            step = ends[number][1] if number < len(ends) else None
        latest = max(latest, record["at"])
        result.append({"step": step, **record, "at": latest})
    return result


class _Steps:
    """Finds steps by their times; asked in the order of time."""

    def __init__(self, steps: Sequence[Json]) -> None:
        self._steps = steps
        self._next = 0

    def at(self, moment: float) -> int | None:
        """The number of the step that was going on then."""
        steps = self._steps
        while self._next < len(steps) and (steps[self._next]["ended_at"] or time.time()) < moment:
            self._next += 1
        if self._next == len(steps) or steps[self._next]["started_at"] > moment:
            return None
        number: int = steps[self._next]["step"]
        return number


def _ordered(rows: Sequence[EventRow]) -> Iterator[tuple[EventRow, Json]]:
    """Observed rows and their records without ``clock``, by the time of their beginning within each start."""
    start: list[tuple[EventRow, Json]] = []
    for row in rows:
        if row.kind == STARTED:
            yield from _sorted(start)
            start = []
        elif row.kind == OBSERVED:
            start.append((row, json.loads(row.record or "{}")))
    yield from _sorted(start)


def _sorted(calls: list[tuple[EventRow, Json]]) -> list[tuple[EventRow, Json]]:
    """In order of ``clock``; without one it is what ``at`` says if both clocks go on as at the call stored before."""
    ahead = next((record["at"] - record["clock"] for _, record in calls if "clock" in record), 0.0)
    over, keyed = 0.0, []
    for row, record in calls:
        if (clock := record.pop("clock", None)) is None:
            clock = max(over, record["at"] - ahead)
        else:
            ahead = record["at"] - clock
            over = max(over, clock + record["ms"] / 1000)  # what is stored later and is told at its end came after this
        keyed.append((clock, row, record))
    return [(row, record) for _, row, record in sorted(keyed, key=lambda item: item[0])]
