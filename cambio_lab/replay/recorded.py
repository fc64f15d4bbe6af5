"""What surrounded the agent in a recording, given to it again: approvals, client tools, and stops where they were."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..agent.extras import NAME, RESERVED, ExtraResult
from ..agent.gate import Gate, LimitReached
from ..agent.tools import LIMIT, STOPPED
from ..desktop.base import Screenshot
from ..events import Event, ToolFinished
from ..recording import Contents, Json

TIMEOUT = 300.0
COUNTED = frozenset({"RequestSent", "ModelReplied", "HistoryAppended", "ToolStarted", "ToolFinished"})


class RecordedGate(Gate):
    """Asks for approval exactly where the recording did, because the policy may have changed during the run."""

    def __init__(self, contents: Contents) -> None:
        super().__init__("never", TIMEOUT)
        asked = (event for event in contents.events if event["kind"] == "ApprovalRequested")
        self._asked = frozenset(event["tool_use_id"] for event in asked)

    def needs_approval(self, tool_use_id: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        return tool_use_id in self._asked


class RecordedTools:
    """The functions that a client offered: each call gets its recorded result."""

    timeout = TIMEOUT

    def __init__(self, contents: Contents) -> None:
        self._results: dict[str, Json] = {}
        self._find = contents.find
        offered = {str(tool.get("name")) for tool in _offered(contents)}
        for event in contents.events:
            if event["kind"] == "ToolStarted" and event["toolset"] is None:
                offered.add(event["tool"])
            elif event["kind"] == "ToolFinished":
                self._results[event["tool_use_id"]] = event
        self._names = sorted(name for name in offered - RESERVED if NAME.match(name))

    def __bool__(self) -> bool:
        return bool(self._names)

    def schemas(self) -> Sequence[dict[str, Any]]:
        return [{"name": name, "description": "", "input_schema": {"type": "object"}} for name in self._names]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        event = self._results.get(tool_use_id)
        if event is None:
            return ExtraResult(f"The recording has no result of {name}.", is_error=True)
        image, size = event.get("image"), (event["width"], event["height"])
        data = self._find(image["sha256"]) if image else None
        shown = Screenshot(data, image["media_type"], *size) if image and data else None
        return ExtraResult(event["text"], event["is_error"], shown)


def _offered(contents: Contents) -> list[Json]:
    """Return the definitions of functions in the first request; the service's own tools have a type."""
    tools = contents.manifest.get("request", {}).get("tools")
    return [tool for tool in tools if isinstance(tool, dict) and "type" not in tool] if isinstance(tools, list) else []


@dataclass(frozen=True)
class StopPoint:
    """Where a turn was cut off, by a person or its time limit (``timed_out``).

    It was after ``events`` of the :data:`COUNTED` ones, or ``inside`` a call or a reply.
    """

    events: int
    inside: bool
    timed_out: bool


class RecordedStops:
    """Decides when a stop of the replaying client takes effect.

    An early stop takes effect at its recorded place; there, a late one is waited for, at most ``patience`` seconds. A
    turn that was not stopped in the recording is stopped at once.
    """

    def __init__(self, contents: Contents, gate: Gate, patience: float) -> None:
        self._points = _points(contents)
        self._gate = gate
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
            self.press()

    def press(self) -> None:
        """Cut the turn off now."""
        if self._point is not None and self._point.timed_out:
            self._gate.halt(LimitReached("max_seconds", "The turn's time limit was reached."))
        else:
            self._gate.stop_now()

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

    async def shown(self, event: Event) -> None:
        """An event was shown; if the turn was stopped right after it, so it is now."""
        if type(event).__name__ not in COUNTED or _came_later(event):
            return
        self._count += 1
        point = self._point
        if point is not None and not point.inside and self._count == point.events:
            await self._wait_and_press()

    async def _wait_and_press(self) -> None:
        if self._patience and self._point is not None and not self._point.timed_out:
            with suppress(TimeoutError):  # the client that stopped it may not be here
                await asyncio.wait_for(self._wanted.wait(), self._patience)
        self.press()

    def close(self) -> None:
        """Nothing waits any more; a stop is a stop."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._gate.stop_now()


def _came_later(event: Event) -> bool:
    """The answer to a call that the stop kept from running."""
    return isinstance(event, ToolFinished) and event.text in (STOPPED, LIMIT)


def _points(contents: Contents) -> list[StopPoint | None]:
    """For each turn, where it was cut off, or ``None``."""
    points: list[StopPoint | None] = []
    begin, count, over = 0.0, 0, False
    for event in contents.events:
        kind = event["kind"]
        if kind == "UserMessage":
            begin, count, over = event["time"], 0, False
        elif kind in COUNTED and event.get("actor") != "human":
            over = over or (kind == "ToolFinished" and event["text"] in (STOPPED, LIMIT))
            count += not over
        elif kind in ("TurnFinished", "TurnFailed"):
            timed_out = event.get("limit") == "max_seconds"
            inside = _was_inside(contents, begin, event["time"])
            points.append(StopPoint(count, inside, timed_out) if timed_out or event.get("stopped") else None)
    return points


def _was_inside(contents: Contents, begin: float, end: float) -> bool:
    def cut(item: Json, at: float) -> bool:
        error = item.get("error")
        kind = error.get("type") if isinstance(error, dict) else error
        return begin <= at <= end and kind in ("Cancelled", "cancelled")

    calls = (call for call in contents.observations if call.get("by") is None)
    return any(cut(call, call["at"]) for call in calls) or any(
        cut(exchange, exchange.get("started_at", 0.0)) for exchange in contents.exchanges
    )
