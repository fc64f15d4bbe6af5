"""A session: one desktop, one conversation, one state machine.

Everything that anybody does to a session goes through here, one thing at a time where order matters (a lock for
sending, clearing and ending). The agent's turn is a task that the session owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from cambio_lab.agent.gate import Gate, parse_policy
from cambio_lab.agent.options import TurnOptions
from cambio_lab.agent.tools.extra import ExtraTools
from cambio_lab.desktop.base import Desktop
from cambio_lab.errors import (
    CambioError,
    MessageLimitReached,
    RecordFull,
    SessionConflict,
    SessionEnded,
    StoreUnavailable,
    TurnRunning,
)
from cambio_lab.events import (
    ControlChanged,
    ConversationCleared,
    Event,
    HumanInput,
    PolicyChanged,
    Status,
    StatusChanged,
    Usage,
    UserMessage,
)
from cambio_lab.settings import Settings
from cambio_lab.store import SessionRow, SessionStatus, Store, new_message_id

from .agents import AgentFactory, SessionAgent, agent_request, stored_conversation
from .broadcast import Subscription
from .config import SessionConfig, check_content, check_metadata, check_name, parse_display, turn_options
from .journal import Journal, Moment
from .quota import Quota
from .secrets import SecretTools
from .state import Life, Phase
from .turn import Turn
from .views import Clock, Encode, SessionView, Viewer, describe, snapshot

T = TypeVar("T")
WINDING_UP = 5.0
"""Seconds an ended turn may take to let go of the agent before the next message."""
RETRY = 0.5
LIFTING = 2.0
"""Seconds for the agent's keys and buttons to come up when a viewer takes the mouse."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a session is given by its registry and shares with the others."""

    settings: Settings
    store: Store
    encode: Encode
    clock: Clock
    quota: Quota
    build_agent: AgentFactory
    changed: Callable[[Session], None]
    """Called after anything that a listing shows has changed."""
    broken: Callable[[Session, str], None]
    """Called when the session cannot go on, with the reason; whoever is called ends it."""


class Session:
    """Made by the registry. ``status`` is ``active``, ``inactive`` or ``error``; ``state`` is finer."""

    def __init__(
        self,
        row: SessionRow,
        *,
        config: SessionConfig,
        desktop: Desktop,
        agent_desktop: Desktop,
        agent: SessionAgent,
        gate: Gate,
        around: Surroundings,
        began: float,
    ) -> None:
        """``desktop`` is for clients: what they do with it is recorded as theirs; ``agent_desktop`` is for its agent.

        ``began`` is the monotonic time at which its life began (before a restart: earlier than this process).
        """
        self.id = row.id
        self.name = row.name
        self.config = config
        self.status: SessionStatus = "active"
        self.state: Status = "idle"
        self.created_at = row.created_at
        self.began = began
        self.ended_at: float | None = None
        self.end_reason: str | None = None
        self.model = row.model
        self.desktop_kind = row.desktop_kind
        self.mask = config.mask()
        self.desktop = desktop
        self._agent_desktop = agent_desktop
        self.agent = agent
        self.gate = gate
        self.usage = Usage(**row.usage)
        self.steps = row.steps
        self.record_bytes = row.record_bytes
        self.pinned = bool(row.pinned)
        self.quota = around.quota
        self.control: str | None = None
        """The viewer who has the mouse; ``None``: the agent."""
        self.extra_tools: ExtraTools | None = None
        """Functions that a client offers to the agent from its next turn on."""
        self.store = around.store
        self.clock = around.clock
        self.journal = Journal(
            row.id, around.store, sequence=row.last_sequence, stream_sequence=row.last_stream_sequence
        )
        self.admission = asyncio.Lock()
        """Held while a message is accepted, the history is cleared or the session is ended."""
        self.life = Life()
        self.active_at = self.clock.monotonic()
        self.turn: Turn | None = None
        self.turn_task: asyncio.Task[None] | None = None
        self.viewers: set[Viewer] = set()
        self.desktop_left = False
        """Its desktop could not be removed when it ended; the housekeeping tries again."""
        self._around = around
        self._user_messages = row.user_messages
        self._paused = False
        self._last_time = row.created_at

    # Messages

    async def send(self, content: object, metadata: object = None) -> str:
        """Accept a message and start the agent's turn; its id, once it is on disk.

        Raises :class:`InvalidRequest`, :class:`SessionEnded`, :class:`TurnRunning`, :class:`MessageLimitReached`
        or :class:`StoreUnavailable`; then nothing is stored.
        """
        text, extra = self.mask.text(check_content(content)), check_metadata(metadata, self.mask)
        tools = SecretTools(self.extra_tools, self.mask) if self.extra_tools and self.mask else self.extra_tools
        options = TurnOptions(**turn_options(extra), extra_tools=tools)
        async with self.admission:
            self._require_ready("A message is refused")
            limit = self.config.max_messages
            if limit is not None and self._user_messages >= limit:
                raise MessageLimitReached(
                    f"This session takes {limit} messages, and they have been sent.", hint="Start a new session."
                )
            if problem := self.quota.problem(self.record_bytes):
                raise RecordFull(problem.words, hint="Start a new session, or raise the setting " + problem.name + ".")
            await self._turn_wound_up()
            if self.turn is not None and self.turn.broken_off:
                await self._renew_agent()
            message_id = new_message_id()
            operations = [
                self.store.messages.appending(message_id, self.id, "user", text, extra, self.now()),
                self.store.sessions.updating(
                    self.id, turn_message_id=message_id, user_messages=self._user_messages + 1
                ),
            ]
            event = UserMessage(message_id, text, extra)
            await self.journal.emit(self.moment(event), operations=operations, refusable=True)
            self._user_messages += 1
            self.touch()
            self.life.move(Phase.WORKING)
            self._hold()
            self.show("thinking")
            self.turn = Turn(self, message_id, text, options)
            self.turn_task = asyncio.create_task(self.turn.run(), name=f"turn of session {self.id}")
            return message_id

    async def clear_history(self) -> int:
        """Forget the conversation, the agent's memory of it included; how many messages there were.

        Raises :class:`TurnRunning` while the agent works, :class:`SessionEnded`, :class:`StoreUnavailable`.
        """
        async with self.admission:
            self._require_ready("The history cannot be cleared")
            await self._turn_wound_up()
            row = await self.store.sessions.get(self.id)
            count = 0 if row is None else row.message_count
            operations = [self.store.messages.clearing(self.id), self.store.transcript.clearing(self.id)]
            await self.journal.emit(self.moment(ConversationCleared(count)), operations=operations, refusable=True)
            self.agent.clear()
            self.touch()
            return count

    # What people do while it works

    async def stop(self, message_id: str | None = None) -> None:
        """End the running turn now; without one, nothing happens.

        ``message_id`` names the turn to stop. :class:`SessionConflict` when that turn has ended already.
        """
        self._require_live()
        running = self.turn.message_id if self.turn is not None and self.life.working else None
        if message_id is not None and message_id != running:
            raise SessionConflict("This turn has ended already; nothing was stopped.", hint="Stop names another turn.")
        if self.life.phase is Phase.WORKING:
            self.life.move(Phase.STOPPING)
        if self.life.phase is Phase.STOPPING:
            self.gate.stop()

    async def pause(self) -> None:
        """Hold the agent before its next action; without a running turn, nothing happens."""
        self._require_live()
        self._paused = self._paused or self.life.working
        self._hold()

    async def resume(self) -> None:
        """Let the agent go on. :class:`SessionConflict` while a viewer has the mouse."""
        self._require_live()
        if self.control is not None:
            raise SessionConflict(f"{self.control} has the mouse.", hint="The agent goes on when it is given back.")
        self._paused = False
        self._hold()

    async def approve(self, tool_use_id: str | None = None, by: str = "") -> None:
        """Allow the call that waits; :class:`SessionConflict` when none (or another) does."""
        self._decide(tool_use_id, True, by)

    async def deny(self, tool_use_id: str | None = None, by: str = "") -> None:
        """Refuse the call that waits."""
        self._decide(tool_use_id, False, by)

    async def take_control(self, viewer: str) -> None:
        """Give the mouse to a viewer; the agent pauses until it is given back. Who takes it last has it."""
        self._require_live()
        if self.control != viewer:
            self.control = viewer
            self._hold()
            self.touch()
            await self.journal.emit(self.moment(ControlChanged(viewer)))
            await self.lift_hands()

    async def lift_hands(self) -> None:
        """Lift what the agent left down while a viewer has the mouse: Xvnc hears only who has a button down.

        A call that runs is not disturbed; the turn comes here again once it has ended.
        """
        if self.control is None or self.turn is None or self.turn.finished or self.turn.acting:
            return
        with suppress(CambioError, TimeoutError):  # a desktop that is gone holds nothing
            async with asyncio.timeout(LIFTING):
                await self.desktop.release_all()

    def may_act(self, viewer: str) -> bool:
        """Whether a viewer's mouse and keyboard count: it has control, or nobody has and the agent is idle."""
        return self.control == viewer or (self.control is None and not self.life.working)

    async def give_back(self, viewer: str | None = None) -> None:
        """Give the mouse back to the agent; nothing happens when ``viewer`` does not have it."""
        self._require_live()
        if self.control is not None and viewer in (None, self.control):
            self.control = None
            self._hold()
            await self.journal.emit(self.moment(ControlChanged(None)))

    async def record_human_input(self, event: HumanInput) -> None:
        """Note that a person used the desktop; how much, never what."""
        self._require_live()
        self.touch()
        await self.journal.post(self.moment(event))

    async def change(
        self, *, name: str | None = None, approval: str | list[str] | None = None, display: str | None = None
    ) -> None:
        """Change what may be changed while it lives, all of it or nothing; what is ``None`` stays."""
        self._require_live()
        title = check_name(name, self.mask)
        policy = None if approval is None else parse_policy(approval)
        # Nothing changes unless all of it can; the desktop's own refusal comes last, and before the rest.
        if display is not None:
            await self.desktop.resize(parse_display(display))
            self.config = self.config.changed(display=display)
        if policy is not None:
            self.gate.policy = policy
            self.config = self.config.changed(approval=approval)
        self.name = title or self.name
        operation = self.store.sessions.updating(self.id, name=self.name, config=self.config.given())
        changes = [] if approval is None else [self.moment(PolicyChanged(approval))]
        await self.journal.emit(*changes, operations=[operation])
        self._around.changed(self)

    # Those who watch

    def subscribe(
        self, *, after: int | None = None, stream: bool = False, max_bytes: int | None = None
    ) -> Subscription:
        """A reader of this session's events, from the one after ``after`` on (default: from now)."""
        self.touch()
        most = self._around.settings.queue_bytes if max_bytes is None else max_bytes
        return self.journal.broadcast.subscribe(after=after, stream=stream, max_bytes=most)

    def add_viewer(self, viewer: Viewer) -> None:
        """``viewer.session_ended`` is called when the session ends. :class:`SessionEnded` if it has."""
        self._require_live()
        self.touch()
        self.viewers.add(viewer)

    async def remove_viewer(self, viewer: Viewer) -> None:
        """A viewer left; if nobody of that name is left, the mouse is the agent's again."""
        self.viewers.discard(viewer)
        await self.leave(viewer.name)

    async def leave(self, viewer: str) -> None:
        """A connection of this viewer closed: give its control back, unless the viewer still watches the desktop."""
        if not self.life.over:
            self.touch()
            if viewer == self.control and all(other.name != viewer for other in self.viewers):
                await self.give_back(viewer)

    def touch(self) -> None:
        """Somebody is here: the time until the session counts as idle begins anew."""
        self.active_at = self.clock.monotonic()

    def snapshot_status(self) -> dict[str, Any]:
        """``status``, ``content`` and ``metadata`` of the first message a new reader is sent."""
        return snapshot(self)

    def describe(self) -> dict[str, Any]:
        """The body of ``GET /sessions/{id}`` without addresses."""
        return describe(self)

    # For the turn, the registry and what ends a session

    def now(self) -> float:
        """Wall time that never goes back within this session."""
        self._last_time = max(self._last_time, self.clock.time())
        return self._last_time

    def moment(
        self,
        event: Event,
        *,
        image_sha256: str | None = None,
        reply_id: str | None = None,
        cost_usd: float | None = None,
        denied: bool = False,
    ) -> Moment:
        """``event`` as it happens now, translated once for all readers."""
        time = self.now()
        view = SessionView(
            session_id=self.id,
            time=time,
            state=self.state,
            steps=self.steps,
            usage=self.usage,
            message_id=self.turn.message_id if self.turn else None,
            reply_id=reply_id,
            image_sha256=image_sha256,
            control=self.control,
            cost_usd=cost_usd,
            denied=denied,
            turn_usage=self.turn.used if self.turn else None,
        )
        return Moment(event, time, self._around.encode(event, view), image_sha256)

    async def record_grew(self, total: int) -> None:
        """Note the size of the record: say when its limit is near, end the turn when it is reached."""
        before, self.record_bytes = self.record_bytes, total
        if problem := self.quota.problem(total):
            self.gate.halt(problem)
        elif (warning := self.quota.warning(before, total)) is not None:
            await self.warn(*warning)

    async def warn(self, words: str, metadata: dict[str, Any]) -> None:
        """Tell this session's readers something that is about to happen; its state stays."""
        await self.journal.post(self.moment(StatusChanged(self.state, words, metadata)))

    def show(self, state: Status) -> None:
        self.state = state
        self._around.changed(self)

    async def patiently(self, write: Callable[[], Awaitable[T]]) -> T:
        """Do ``write`` (a picture, mostly) again until the disk takes it: what has happened must be told."""
        while True:
            try:
                return await write()
            except StoreUnavailable as error:
                self.journal.failure = error
                await asyncio.sleep(RETRY)

    @property
    def stop_wanted(self) -> bool:
        return self.life.phase is Phase.STOPPING

    def turn_over(self, turn: Turn) -> None:
        """The turn has ended: the next message may come, unless the session cannot go on."""
        self._paused = False
        self._hold()
        if turn.fatal is not None:
            self.show("error")
            self._around.broken(self, turn.fatal)
        elif not self.life.over:
            self.life.move(Phase.READY)
            self.show("idle")
        self.touch()

    async def _renew_agent(self) -> None:
        """An agent that remembers what is stored, in place of one that may remember more."""
        history = await stored_conversation(self.store, self.id)
        await self.agent.aclose()
        self.agent = await self._around.build_agent(
            agent_request(self.id, self.config, self._agent_desktop, self.gate, history, self.usage, self.steps)
        )
        self.turn = None

    def _decide(self, tool_use_id: str | None, approve: bool, by: str) -> None:
        self._require_live()
        if not self.gate.decide(tool_use_id, approve, by):
            raise SessionConflict("Nothing waits for approval.", hint="It was decided or timed out meanwhile.")

    def _hold(self) -> None:
        """Hold the agent or let it go on, and tell the viewers: some of them may not act any more."""
        if self._paused or self.control is not None:
            self.gate.pause()
        else:
            self.gate.resume()
        for viewer in list(self.viewers):
            viewer.may_act_changed()

    def _require_live(self) -> None:
        if self.life.over:
            raise SessionEnded(f"The session is over: {self.end_reason or 'it ended'}.", hint="Start a new one.")

    def _require_ready(self, what: str) -> None:
        self._require_live()
        if self.life.phase is not Phase.READY:
            raise TurnRunning(f"{what}: the agent is at work.", hint="Wait for its answer, or stop it.")

    async def _turn_wound_up(self) -> None:
        """The answer is shown a moment before the agent has let go of its turn."""
        if self.turn_task is not None and not self.turn_task.done():
            await asyncio.wait({self.turn_task}, timeout=WINDING_UP)
            if not self.turn_task.done():
                raise self.journal.failure or TurnRunning("The agent is still ending its turn.", hint="Try again.")
