"""What a session is at a moment, and how it tells it: to readers, to listings, to clients that connect."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

from cambio_lab.agent.gate import Gate
from cambio_lab.agent.models import notice
from cambio_lab.agent.tools import parse_policy
from cambio_lab.desktop.base import Desktop
from cambio_lab.errors import SessionEnded, StoreUnavailable
from cambio_lab.events import Event, Status, StatusChanged, ToolFinished, ToolStarted, Usage, timestamp
from cambio_lab.store import EventRow, Operation, SessionRow, SessionStatus, StepRow

from . import SessionContext, SessionView, Subscription, Viewer
from .config import SessionConfig
from .journal import Journal, event_row

T = TypeVar("T")
RETRY_SECONDS = 0.5
WORDS: dict[Status, str] = {
    "idle": "Waiting for a message",
    "thinking": "The agent thinks",
    "acting": "The agent acts",
    "waiting_approval": "Waiting for approval",
    "waiting": "Waiting for an answer",
    "paused": "Paused",
    "stopped": "Stopped",
    "ended": "The session is over",
    "error": "The session failed",
}

MOST_QUEUED = 20  # messages of up to 200,000 characters that wait for the agent; each new reader is sent them all


class Phase(Enum):
    """Where a session is in its life. What people are shown (``thinking``, ``acting``...) is finer."""

    READY = "ready"
    WORKING = "working"
    STOPPING = "stopping"
    ENDING = "ending"
    ENDED = "ended"


LEGAL: dict[Phase, frozenset[Phase]] = {
    Phase.READY: frozenset({Phase.WORKING, Phase.ENDING}),
    Phase.WORKING: frozenset({Phase.READY, Phase.STOPPING, Phase.ENDING}),
    Phase.STOPPING: frozenset({Phase.READY, Phase.ENDING}),
    Phase.ENDING: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
}


class Life:
    """The current phase. An illegal move is a mistake in this package: callers are refused before it can happen."""

    def __init__(self) -> None:
        self.phase = Phase.READY

    def move(self, to: Phase) -> None:
        if to not in LEGAL[self.phase]:
            raise RuntimeError(f"illegal transition: {self.phase.value} -> {to.value}")
        self.phase = to

    @property
    def over(self) -> bool:
        return self.phase in (Phase.ENDING, Phase.ENDED)

    @property
    def working(self) -> bool:
        return self.phase in (Phase.WORKING, Phase.STOPPING)


_CHANGEABLE = ("name", "status", "ended_at", "end_reason", "steps", "record_bytes", "pinned", "tags", "note")


class SessionState:
    """The facts of one session. ``status`` is ``active``, ``inactive`` or ``error``; ``state`` is finer."""

    def __init__(self, row: SessionRow, config: SessionConfig, desktop: Desktop, context: SessionContext) -> None:
        self._row = row
        self.id = row.id
        self.name = row.name
        self.config = config
        self.mask = config.mask()
        self.status: SessionStatus = "active"
        self.state: Status = "idle"
        self.ended_at: float | None = None
        self.end_reason: str | None = None
        self.model = row.model
        self.desktop_kind = row.desktop_kind
        self.desktop = desktop
        """For clients: what they do with it is recorded as theirs."""
        self.usage = Usage(**row.usage)
        self.steps = row.steps
        self.record_bytes = row.record_bytes
        self.pinned = bool(row.pinned)
        self.tags, self.note = row.tags, row.note
        self.context = context
        timeout = context.settings.approval_timeout if config.approval_timeout is None else config.approval_timeout
        self.gate = Gate(parse_policy(self.approval), timeout)
        self.quota = context.quota
        self.store = context.store
        self.clock = context.clock
        self.began = self.clock.monotonic() - max(0.0, self.clock.time() - row.created_at)
        """In monotonic time; before a restart, its life began earlier than this process."""
        self.journal = Journal(row, context.store)
        self.life = Life()
        self.control: str | None = None
        """The viewer who has control; ``None``: the agent."""
        self.paused = False
        self.viewers: set[Viewer] = set()
        self.active_at = self.clock.monotonic()
        self.warned: set[str] = set()
        """Reasons to end that its readers were warned of; see :func:`.control.expired`."""
        self.turn_message_id: str | None = None
        """The message that the latest turn answers."""
        self._last_time = row.created_at

    @property
    def approval(self) -> str | list[str]:
        """Return the effective approval policy."""
        return self.context.settings.approval if self.config.approval is None else self.config.approval

    def now(self) -> float:
        """Return the wall time; within a session it never goes back."""
        self._last_time = max(self._last_time, self.clock.time())
        return self._last_time

    def touch(self) -> None:
        """A client is here: the time until the session counts as idle starts again."""
        self.active_at = self.clock.monotonic()

    def show(self, state: Status) -> None:
        """Change what listings show."""
        self.state = state
        self.context.changed(self)

    def require_live(self) -> None:
        if self.life.over:
            raise SessionEnded(f"The session is over: {self.end_reason or 'it ended'}.", hint="Start a new one.")

    def hold(self) -> None:
        """Hold the agent or let it go on, and tell the viewers: some of them may not act any more."""
        if self.paused or self.control is not None:
            self.gate.pause()
        else:
            self.gate.resume()
        for viewer in list(self.viewers):
            viewer.may_act_changed()

    def turn_over(self, fatal: str | None) -> None:
        """End the pause, not the control, and let the next message come; called right before the end is told."""
        self.paused = False
        self.hold()
        if fatal is not None:
            self.show("error")
            self.context.failed(self.id, fatal)
        elif not self.life.over:
            self.life.move(Phase.READY)
            self.show("idle")
        self.touch()

    # Events

    def stamped(self, event: Event, **particulars: Any) -> EventRow:
        """Return ``event`` as it happens now, encoded once for the store and all readers.

        ``particulars`` are fields of :class:`SessionView` that only the caller knows.
        """
        now = (self.id, self.now(), self.state, self.steps, self.usage, self.turn_message_id)
        view = SessionView(*now, control=self.control, **particulars)
        return event_row(event, view, self.context.encode(event, view))

    async def warn(self, words: str, metadata: dict[str, Any]) -> None:
        """Tell the readers of something that is about to happen; the state stays."""
        await self.journal.post(self.stamped(StatusChanged(self.state, words, metadata)))

    async def record_grew(self, total: int) -> None:
        """Note the size of the record: warn when its limit is near, end the turn when it is reached."""
        before, self.record_bytes = self.record_bytes, total
        if problem := self.quota.problem(total):
            self.gate.halt(problem)
        elif (warning := self.quota.warning(before, total)) is not None:
            await self.warn(*warning)

    async def until_stored(self, write: Callable[[], Awaitable[T]]) -> T:
        """Repeat ``write`` (of a screenshot, mostly) until the disk takes it: what has happened must be told."""
        while True:
            try:
                return await write()
            except StoreUnavailable as error:
                self.journal.failure = error
                await asyncio.sleep(RETRY_SECONDS)

    def step_row(self, event: ToolStarted | ToolFinished, **more: Any) -> StepRow:
        """Return the row of a call that begins."""
        about = (event.step, event.tool_use_id, event.tool, event.toolset, event.arguments)
        return StepRow(self.id, *about, "started", self.now(), **more)

    async def keep_step(self, event: ToolFinished, row: StepRow, *, denied: bool = False) -> None:
        """Store and tell the end of a step that began as ``row``."""
        sha256, ended = None, "denied" if denied else event.ended
        self.steps = max(self.steps, event.step)
        if event.image is not None:
            image, media_type = event.image, event.media_type
            sha256 = await self.until_stored(lambda: self.store.screenshots.put(image, media_type))
        row = replace(
            row,
            status=("failed" if event.is_error else "completed") if ended == "ran" else ended,
            ended_at=self.now(),
            text=event.text,
            timing=asdict(event.timing),
            sha256=sha256,
            media_type=event.media_type if sha256 else None,
            width=event.width,
            height=event.height,
        )
        operations: list[Operation[Any]] = [
            self.store.steps.appending(row),
            self.store.sessions.updating(self.id, steps=self.steps),
            self.store.sessions.growing(self.id, len(event.image or b"") + len(event.text)),
        ]
        finished = self.stamped(event, image_sha256=sha256, cost_usd=row.cost_usd, denied=denied)
        results = await self.journal.emit(finished, operations=operations)
        await self.record_grew(results[-1])

    def subscribe(self, *, after: int | None = None, stream: bool = False) -> Subscription:
        """Return a reader of this session's events, from the one after ``after`` on (default: from now)."""
        self.touch()
        most = self.context.settings.queue_bytes
        return self.journal.broadcast.subscribe(after=after, stream=stream, max_bytes=most)

    @property
    def in_use(self) -> bool:
        """Whether a turn runs or a client is connected."""
        return bool(self.life.working or self.viewers or len(self.journal.broadcast))

    # Descriptions

    def snapshot_status(self) -> dict[str, Any]:
        """Return ``status``, ``content`` and ``metadata`` of the first message that a new reader is sent."""
        metadata: dict[str, Any] = {
            "event": "snapshot",
            "session_status": self.status,
            "name": self.name,
            "steps": self.steps,
            "usage": self.usage.describe(),
            "viewer": self.control,
            "message_id": self.turn_message_id if self.life.working else None,
            "approval_policy": self.approval,
            "queued": [{"message_id": one.message_id, "message": one.content} for one in self.gate.messages],
        }
        for name, asked in (("approval", self.gate.pending), ("question", self.gate.question)):
            if asked is not None:
                metadata[name] = {**asdict(asked), "expires_at": timestamp(asked.expires_at)}
        words = WORDS[self.state]
        if self.journal.failure is not None:
            words = f"{words}. {self.journal.failure.describe()}"
        return {"status": self.state, "content": words, "metadata": metadata}

    def row(self) -> SessionRow:
        """Return the session as it is listed once it has ended."""
        changes: dict[str, Any] = {name: getattr(self, name) for name in _CHANGEABLE}
        changes |= {"config": self.config.given(), "usage": asdict(self.usage)}
        return replace(self._row, **changes, last_sequence=self.journal.broadcast.sequence)

    def describe(self) -> dict[str, Any]:
        """Return the body of ``GET /sessions/{id}`` without addresses, which depend on how the server is reached."""
        desktop, platform = self.desktop, self.config.platform or self.context.settings.platform
        return self.row().describe() | {
            "state": self.state,
            "vnc_port": desktop.vnc_port,
            "isolated": desktop.isolated,
            "display": str(desktop.size),
            "image_digest": desktop.image_digest,
            "approval": self.approval,
            "notice": notice(self.model, platform, datetime.now(UTC).date()),
            "control": self.control,
        }
