"""Recorded replay: the real loop over recorded replies and observations. No desktop, no network, no key."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from ..agent import Agent
from ..agent.client import ModelClient
from ..agent.gate import Gate, QueuedMessage
from ..agent.options import AgentOptions, TurnOptions
from ..agent.turn import Emit
from ..errors import BundleRefused, CambioError, ReplayDiverged
from ..events import (
    ApprovalRequested,
    Event,
    HistoryAppended,
    ModelReplied,
    QuestionAnswered,
    QuestionAsked,
    Timing,
    ToolFinished,
    TurnFailed,
    TurnFinished,
)
from ..recording import BodyEncoder, Contents, Json, expand, images_of
from ..recording.bounds import check
from ..recording.schema import TURN_OPTIONS
from . import requests
from .recorded import COUNTED, RecordedGate, RecordedStops, RecordedTools
from .replay_desktop import ReplayDesktop


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
        kept = requests.given(contents, every=bool(pace))
        self._recorded = requests.Bodies(contents, kept)
        replies = [contents.exchanges[index] for index in kept]
        self.stops = RecordedStops(contents, gate, patience)
        self._patience = patience
        gate.answering = self._answered
        self._answers = _by_call(contents, "QuestionAnswered")
        self._deciding: asyncio.Task[None] | None = None
        self.transport = requests.ReplayTransport(replies, self._compare, pace=pace, cut=self.stops.reached)
        self.desktop = desktop or ReplayDesktop(contents, pace=pace)
        self.desktop.cut = self.stops.reached
        self._verdicts = _by_call(contents, "ApprovalDecided")
        self._finished = _by_call(contents, "ToolFinished")
        self._model_ms = deque(event["model_ms"] for event in contents.events if event["kind"] == "ModelReplied")
        self._said = _said_during(contents)
        self._appended = 0
        self._humans = _done_by_people(contents)
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

        async def play(event: Event) -> None:
            if isinstance(event, ApprovalRequested):
                self._deciding = asyncio.create_task(self._decide(event))
            self._appended += isinstance(event, HistoryAppended)  # says where the recording is
            await emit(self._with_recorded_times(event))
            self._counted += type(event).__name__ in COUNTED
            await self._repeat_people(agent, emit)
            await self.stops.shown(event)

        agent.next_message = self._next_message
        self.stops.begin()
        await self._repeat_people(agent, emit)
        await Agent.run(agent, content, play, options=options)  # the loop itself, whatever calls this
        self.stops.end()

    async def _decide(self, request: ApprovalRequested) -> None:
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

    async def _answered(self, asked: QuestionAsked) -> QuestionAnswered:
        """Answer a question as it was recorded: a replay asks no person."""
        recorded = self._answers.get(asked.tool_use_id)
        while recorded is None or recorded["outcome"] == "stopped":
            self.stops.press()
            await asyncio.sleep(1)  # the stop ends it
        return QuestionAnswered(asked.tool_use_id, recorded["outcome"], recorded["answer"], recorded["by"])

    async def _repeat_people(self, agent: Agent, emit: Emit) -> None:
        """Tell of the steps that people made at this place of the recording."""
        while self._humans and self._humans[0][0] <= self._counted:
            _, event = self._humans.popleft()
            step, image = agent.count_step(), event.get("image")
            names = ("tool_use_id", "tool", "toolset", "arguments", "is_error", "text", "media_type", "width", "height")
            given = {name: event[name] for name in names}
            data = self.contents.find(image["sha256"]) if image else None
            await emit(ToolFinished(**given, step=step, image=data, actor="human"))

    def check_options(self, options: AgentOptions) -> None:
        """A session that was given another ``system`` text asks something else, whatever its messages say."""
        recorded = (self.contents.manifest.get("environment", {}).get("options") or {}).get("system", "")
        if options.system != recorded and self.transport.divergence is None:
            self.transport.divergence = ReplayDiverged(
                f"the session's system text is {options.system[:120]!r} instead of {recorded[:120]!r}"
            )

    def _with_recorded_times(self, event: Event) -> Event:
        """Return the event with its recorded times and, of a turn that was cut off, the text that had been shown."""
        if isinstance(event, ToolFinished) and event.tool_use_id in self._finished:
            return replace(event, timing=Timing(**self._finished[event.tool_use_id]["timing"]))
        if isinstance(event, ModelReplied) and self._model_ms:
            return replace(event, model_ms=self._model_ms.popleft())
        if isinstance(event, TurnFinished) and (event.stopped or event.limit) and self._ends_alike(event):
            end = self._ends[self.stops.turn]
            return replace(event, text=end["text"], unfinished=end.get("unfinished", ""))
        return event

    def _ends_alike(self, event: TurnFinished) -> bool:
        end = self._ends[self.stops.turn] if self.stops.turn < len(self._ends) else {}
        return (event.stopped, event.limit) == (end.get("stopped"), end.get("limit"))

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
        return None if made == recorded else requests.difference(recorded, made)


@dataclass(frozen=True)
class Replayed:
    """A finished replay. ``messages`` is the conversation, images inline; ``seconds`` what it took."""

    messages: list[Json]
    events: list[Event]
    identical: bool
    seconds: float


def _build(contents: Contents, pace: float) -> tuple[Agent, ModelClient, Playback]:
    """Return the real agent over a recording, set up as it was recorded."""
    environment = contents.manifest.get("environment", {})
    try:
        options = _options(environment.get("options") or {"model": contents.manifest.get("model", "demo")})
    except CambioError as error:
        raise BundleRefused(f"the recorded options are not valid: {error.describe()}") from None
    gate = RecordedGate(contents)
    playback = Playback(contents, gate, pace=pace)
    client = ModelClient(options.platform, options.base_url, options.model_stall, transport=playback.transport)
    agent = Agent(
        desktop=playback.desktop.for_agent,
        options=options,
        gate=gate,
        client=client,
        history=_history_before(contents),
    )
    return agent, client, playback


async def replay(contents: Contents, *, pace: float = 0.0) -> Replayed:
    """Replay a whole run. :class:`~cambio_lab.errors.ReplayDiverged` when the result is not the recorded one."""
    loop, happened = asyncio.get_running_loop(), list[Event]()
    (agent, client, playback), tools = _build(contents, pace), RecordedTools(contents)

    async def emit(event: Event) -> None:
        happened.append(event)

    try:
        await client.open(agent.options.model)  # loads the SDK, which does not count
        await client.parts()
        began = loop.time()
        for event in contents.events:
            if event["kind"] == "ConversationCleared":
                agent.clear()
            if event["kind"] != "UserMessage":
                continue
            await playback.run(agent, event["content"], emit, _turn_options(event, tools, contents))
            if isinstance(happened[-1], TurnFailed) and playback.divergence is not None:
                raise playback.divergence
        playback.check_exhausted()
        messages = agent.history
    finally:
        await playback.aclose()
        await agent.aclose()
    identical = _bytes(messages) == _bytes(await asyncio.to_thread(contents.conversation))
    return Replayed(messages, happened, identical, loop.time() - began)


def _by_call(contents: Contents, kind: str) -> dict[str, Json]:
    """Return the events of one kind by the id of the call that they are about."""
    return {event["tool_use_id"]: event for event in contents.events if event["kind"] == kind}


def _said_during(contents: Contents) -> deque[tuple[int, QueuedMessage]]:
    """Return the messages that came during turns, each with how many messages the conversation had got before."""
    found, appended = deque[tuple[int, QueuedMessage]](), 0
    for event in contents.events:
        appended += event["kind"] == "HistoryAppended"
        if event["kind"] == "MessageDelivered":
            found.append((appended, QueuedMessage(event["message_id"], event["content"], event.get("note", False))))
    return found


def _done_by_people(contents: Contents) -> deque[tuple[int, Json]]:
    """Return the steps that people made, each with how many of the :data:`COUNTED` events came before it."""
    found, counted = deque[tuple[int, Json]](), 0
    for event in contents.events:
        if event.get("actor") == "human":
            found.append((counted, event))
        else:
            counted += event["kind"] in COUNTED
    return found


def _history_before(contents: Contents) -> list[Json]:
    """Return the conversation before the first message: that of the run it was forked from, or nothing."""
    own = 0  # messages of this run before its first request: turns can be stopped before they ask anything
    for event in contents.events:
        own += event["kind"] == "HistoryAppended"
        if event["kind"] == "RequestSent" and contents.exchanges:
            body = expand(next(contents.bodies()), contents.find)
            messages = requests.conversation(body)
            return messages[: max(0, len(messages) - own)]
        if event["kind"] == "ConversationCleared":
            break
    return []


def _bytes(messages: list[Json]) -> bytes:
    return json.dumps(messages, ensure_ascii=False, separators=(",", ":")).encode()


def _options(values: Json) -> AgentOptions:
    names = {item.name for item in fields(AgentOptions)}
    return AgentOptions(**{name: value for name, value in values.items() if name in names})


def _turn_options(event: Json, tools: RecordedTools, contents: Contents) -> TurnOptions:
    metadata = event.get("metadata") or {}
    values = metadata.get("options") or {}
    check(TURN_OPTIONS, values, "the options of a message")
    images = []
    for image in images_of(event):
        if (data := contents.find(image["sha256"])) is None:
            raise BundleRefused(f"the image {image['sha256'][:12]}… of a message is missing")
        images.append((data, image["media_type"]))
    return TurnOptions(**values, extra_tools=tools or None, images=images)
