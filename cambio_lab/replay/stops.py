"""Recorded stops: pressed where they were pressed in the recording, whenever the replaying client presses them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from ..agent.gate import Gate
from ..agent.tools.call import STOPPED
from ..events import Event, ToolFinished
from ..recording.client_desktop import CLIENT
from ..recording.contents import Contents, Json

COUNTED = frozenset({"RequestSent", "ModelReplied", "HistoryAppended", "ToolStarted", "ToolFinished"})


@dataclass(frozen=True)
class StopPoint:
    """Where a turn was stopped: after ``events`` of the :data:`COUNTED` ones, or ``inside`` a call or a reply."""

    events: int
    inside: bool


class Stops:
    """Decides when a stop of the replaying client takes effect.

    An early stop takes effect at its recorded place; there, a late one is waited for, at most ``patience`` seconds. A
    turn that was not stopped in the recording is stopped at once.
    """

    def __init__(self, contents: Contents, gate: Gate, patience: float) -> None:
        self._points = _points(contents)
        self._press = gate.stop_now
        self._patience = patience
        self._wanted = asyncio.Event()
        self.turn = -1
        """Number of the turn that runs, from 0."""
        self._count = 0
        self._running = False
        self._waiting: asyncio.Task[None] | None = None
        gate.on_stop = self.wanted

    @property
    def _point(self) -> StopPoint | None:
        return self._points[self.turn] if 0 <= self.turn < len(self._points) else None

    def wanted(self) -> None:
        """A client pressed stop."""
        self._wanted.set()
        if self._running and self._point is None:
            self._press()

    def press(self) -> None:
        """Stop now."""
        self._press()

    def begin(self) -> None:
        """A turn begins."""
        self.turn += 1
        self._count, self._running = 0, True
        self._wanted.clear()

    def end(self) -> None:
        self._running = False

    def reached(self) -> None:
        """The place inside a call or a reply where it was stopped."""
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(self._wait_and_press())

    async def after(self, event: Event) -> None:
        """An event was shown; if the turn was stopped right after it, so it is now."""
        if type(event).__name__ not in COUNTED or _came_later(event):
            return
        self._count += 1
        point = self._point
        if point is not None and not point.inside and self._count == point.events:
            await self._wait_and_press()

    async def _wait_and_press(self) -> None:
        if self._patience:
            with suppress(TimeoutError):  # the client that stopped it may not be here
                await asyncio.wait_for(self._wanted.wait(), self._patience)
        self._press()

    def close(self) -> None:
        """Nothing waits any more; a stop is a stop."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._press()


def _came_later(event: Event) -> bool:
    """The answer to a call that the stop kept from running."""
    return isinstance(event, ToolFinished) and event.text == STOPPED


def _points(contents: Contents) -> list[StopPoint | None]:
    """For each turn, where it was stopped, or ``None``."""
    points: list[StopPoint | None] = []
    begin, count, over = 0.0, 0, False
    for event in contents.events:
        kind = event["kind"]
        if kind == "UserMessage":
            begin, count, over = event["time"], 0, False
        elif kind in COUNTED:
            over = over or (kind == "ToolFinished" and event["text"] == STOPPED)
            count += not over
        elif kind in ("TurnFinished", "TurnFailed"):
            stopped = bool(event.get("stopped"))
            points.append(StopPoint(count, _was_inside(contents, begin, event["time"])) if stopped else None)
    return points


def _was_inside(contents: Contents, begin: float, end: float) -> bool:
    def cut(item: Json, at: float) -> bool:
        error = item.get("error")
        kind = error.get("type") if isinstance(error, dict) else error
        return begin <= at <= end and kind in ("Cancelled", "cancelled")

    calls = (call for call in contents.observations if call.get("by") != CLIENT)
    return any(cut(call, call["at"]) for call in calls) or any(
        cut(exchange, exchange.get("started_at", 0.0)) for exchange in contents.exchanges
    )
