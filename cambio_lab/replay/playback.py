"""One replay of a run: the real loop over recorded replies and observations, stopped where it was stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from .. import events
from ..agent import Agent
from ..agent.gate import Gate, LimitReached, QueuedMessage
from ..agent.options import AgentOptions, TurnOptions
from ..agent.tools import LIMIT, STOPPED
from ..agent.turn import Emit
from ..errors import ReplayDiverged
from ..recording import Contents, Json
from ..recording.placeholders import BodyEncoder
from . import Bodies, ReplayTransport, cut_replies, difference, given
from .recorded import ReplayDesktop

COUNTED = frozenset({"RequestSent", "ModelReplied", "HistoryAppended", "ToolStarted", "ToolFinished"})


class Playback:
    """One replay of one run: give the agent :attr:`transport` and :attr:`desktop`'s ``for_agent``."""

    def __init__(
        self,
        contents: Contents,
        gate: Gate,
        *,
        pace: float = 0.0,
        desktop: ReplayDesktop | None = None,
        patience: float = 0.0,
    ) -> None:
        """``gate`` is the agent's; it gets the recorded stops and approvals. ``pace`` 0: at once, 1: recorded times.

        ``patience`` is how many seconds a client has to press stop or decide itself: it may be the same program again.
        """
        self.contents = contents
        self.gate = gate
        self._encoder = BodyEncoder()
        kept = given(contents, every=bool(pace))
        self._recorded = Bodies(contents, kept)
        exchanges = cut_replies(contents)
        replies = [exchanges[index] for index in kept]
        self.stops = RecordedStops(contents, exchanges, gate, patience)
        self._patience = patience
        gate.answering = self._answered
        self._answers = _by_call(contents, "QuestionAnswered")
        self._deciding: asyncio.Task[None] | None = None
        self.transport = ReplayTransport(replies, self._compare, pace=pace, cut=self.stops.reached)
        self.desktop = desktop or ReplayDesktop(contents, pace=pace)
        self.desktop.cut = self.stops.reached
        self._verdicts = _by_call(contents, "ApprovalDecided")
        self._finished = _by_call(contents, "ToolFinished")
        self._model_ms = deque(event["model_ms"] for event in contents.events if event["kind"] == "ModelReplied")
        self._said, self._humans = _beside_the_agent(contents)
        self._appended = 0
        self._counted = 0
        self._ends = [event for event in contents.events if event["kind"] in ("TurnFinished", "TurnFailed")]

    @property
    def divergence(self) -> ReplayDiverged | None:
        """The first difference from the recording, if any."""
        return self.transport.divergence or self.desktop.divergence

    def check_exhausted(self) -> None:
        """Raise :class:`ReplayDiverged` when the run diverged, or ended before the recording did."""
        if self.divergence is not None:
            raise self.divergence
        if not self.transport.exhausted:
            left = self.transport.position
            raise ReplayDiverged(f"the run ended after {left} of {len(self._recorded)} recorded requests to the model")

    async def run(self, agent: Agent, content: str, emit: Emit, options: TurnOptions | None = None) -> None:
        """Carry one turn out with the approvals, stops, messages and times of the recording."""

        async def play(event: events.Event) -> None:
            if isinstance(event, events.ApprovalRequested):
                self._deciding = asyncio.create_task(self._decide(event))
            self._appended += isinstance(event, events.HistoryAppended)  # says where the recording is
            await emit(self._with_recorded_times(event))
            self._counted += type(event).__name__ in COUNTED
            await self._repeat_people(agent, emit)
            await self.stops.shown(event)

        agent.next_message = self._next_message
        self.stops.begin()
        await self._repeat_people(agent, emit)
        await Agent.run(agent, content, play, options=options)  # the loop itself, whatever calls this
        self.stops.end()

    async def _decide(self, request: events.ApprovalRequested) -> None:
        """Answer a request for approval as it was recorded, unless a client does within the patience."""
        recorded = self._verdicts.get(request.tool_use_id)
        verdict = recorded["verdict"] if recorded else "denied"
        if verdict == "timeout":
            self.gate.timeout = 0.01
            return
        await asyncio.sleep(self._patience)
        if verdict == "stopped":
            self.stops.press()
        else:
            self.gate.decide(request.tool_use_id, verdict == "approved", recorded["by"] if recorded else "")

    async def _answered(self, asked: events.QuestionAsked) -> events.QuestionAnswered:
        """Answer a question as it was recorded: a replay asks no person."""
        recorded = self._answers.get(asked.tool_use_id)
        while recorded is None or recorded["outcome"] == "stopped":
            self.stops.press()
            await asyncio.sleep(1)  # the stop ends it
        return events.QuestionAnswered(asked.tool_use_id, recorded["outcome"], recorded["answer"], recorded["by"])

    async def _repeat_people(self, agent: Agent, emit: Emit) -> None:
        """Tell of the steps that people made at this place of the recording."""
        while self._humans and self._humans[0][0] <= self._counted:
            _, event = self._humans.popleft()
            step, image = agent.count_step(), event.get("image")
            names = ("tool_use_id", "tool", "toolset", "arguments", "is_error", "text", "media_type", "width", "height")
            given = {name: event[name] for name in names}
            data = self.contents.find(image["sha256"]) if image else None
            await emit(events.ToolFinished(**given, step=step, image=data, actor="human"))

    def check_options(self, options: AgentOptions) -> None:
        """A session that was given another ``system`` text asks something else, whatever its messages say."""
        recorded = (self.contents.manifest.get("environment", {}).get("options") or {}).get("system", "")
        if options.system != recorded and self.transport.divergence is None:
            self.transport.divergence = ReplayDiverged(
                f"the session's system text is {options.system[:120]!r} instead of {recorded[:120]!r}"
            )

    def _with_recorded_times(self, event: events.Event) -> events.Event:
        """Return the event with its recorded times and, of a turn that was cut off, the text that had been shown."""
        if isinstance(event, events.ToolFinished) and event.tool_use_id in self._finished:
            return replace(event, timing=events.Timing(**self._finished[event.tool_use_id]["timing"]))
        if isinstance(event, events.ModelReplied) and self._model_ms:
            return replace(event, model_ms=self._model_ms.popleft())
        if isinstance(event, events.TurnFinished) and (event.stopped or event.limit):
            end = self._ends[self.stops.turn] if self.stops.turn < len(self._ends) else {}
            if (event.stopped, event.limit) == (end.get("stopped"), end.get("limit")):
                return replace(event, text=end["text"], unfinished=end.get("unfinished", ""))
        return event

    def _next_message(self, *, notes: bool = True) -> QueuedMessage | None:
        """Give the message that was delivered at this place of the recording: the client's, if it sent one."""
        if not self._said or self._said[0][0] > self._appended:
            return None
        _, recorded = self._said.popleft()
        return recorded if recorded.note else self.gate.next_message(notes=False) or recorded

    async def aclose(self) -> None:
        """Cancel what waits."""
        self.stops.close()
        if self._deciding is not None:
            self._deciding.cancel()

    def _compare(self, index: int, body: Sequence[bytes]) -> str | None:
        made, recorded = self._encoder.encode(body), self._recorded[index]
        return None if made == recorded else difference(recorded, made)


def _by_call(contents: Contents, kind: str) -> dict[str, Json]:
    """Return the events of one kind by the id of the call that they are about."""
    return {event["tool_use_id"]: event for event in contents.events if event["kind"] == kind}


def _beside_the_agent(contents: Contents) -> tuple[deque[tuple[int, QueuedMessage]], deque[tuple[int, Json]]]:
    """Return the messages that came during turns, and the steps that people made, each with its place.

    That is how many messages the conversation had got before, and how many of the :data:`COUNTED` events came before.
    """
    said, done = deque[tuple[int, QueuedMessage]](), deque[tuple[int, Json]]()
    appended = counted = 0
    for event in contents.events:
        appended += event["kind"] == "HistoryAppended"
        if event["kind"] == "MessageDelivered":
            said.append((appended, QueuedMessage(event["message_id"], event["content"], event.get("note", False))))
        if event.get("actor") == "human":
            done.append((counted, event))
        else:
            counted += event["kind"] in COUNTED
    return said, done


class StopPoint(NamedTuple):
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

    def __init__(self, contents: Contents, exchanges: Sequence[Json], gate: Gate, patience: float) -> None:
        self._points = _points(contents, exchanges)
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

    async def shown(self, event: events.Event) -> None:
        """An event was shown; if the turn was stopped right after it, so it is now."""
        if type(event).__name__ not in COUNTED:
            return
        if isinstance(event, events.ToolFinished) and event.text in (STOPPED, LIMIT):
            return  # the answer to a call that the stop kept from running
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


def _points(contents: Contents, exchanges: Sequence[Json]) -> list[StopPoint | None]:
    """For each turn, where it was cut off, or ``None``."""
    points: list[StopPoint | None] = []
    calls = [call for call in contents.observations if call.get("by") is None and call.get("error")]
    cancelled = [call["at"] for call in calls if call["error"]["type"] == "Cancelled"]
    cancelled += [one.get("started_at", 0.0) for one in exchanges if one.get("error") == "cancelled"]
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
            inside = any(begin <= at <= event["time"] for at in cancelled)
            points.append(StopPoint(count, inside, timed_out) if timed_out or event.get("stopped") else None)
    return points
