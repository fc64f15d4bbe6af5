"""A session: one desktop, one conversation, one state machine.

Everything that clients do to a session goes through here, one at a time where order matters (a lock for sending,
clearing and ending). The session owns the turn that runs, and its own end.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any, Literal

from cambio_lab import events
from cambio_lab.agent.extras import ExtraTools
from cambio_lab.agent.gate import QueuedMessage
from cambio_lab.agent.models import resolve
from cambio_lab.agent.tools import parse_policy
from cambio_lab.desktop.base import Desktop
from cambio_lab.errors import DesktopLost, MessageLimitReached, RecordFull, SessionConflict, SessionEnded, TurnRunning
from cambio_lab.replay.runs import keep
from cambio_lab.store import SessionRow, SessionStatus, new_message_id

from . import SessionContext
from .agent import AgentRequest, RecordedAgent, stored_conversation
from .config import SessionConfig, check_name, parse_display
from .control import ControlledSession, attempt
from .human import HumanSteps
from .message import Uploads, checked
from .state import MOST_QUEUED, Phase
from .turn import SessionTurn

When = Literal["idle", "next", "now"]
RECORD_SECONDS = 5.0  # for the store to take the end; the journal goes on trying after that.
CLOSE_SECONDS = 20.0  # for the desktop to be removed.
REASONS = {
    "request": "The session was ended",
    "timeout": "The session's time is up",
    "idle": "No client used the session",
    "shutdown": "The server is stopping",
    "restart": "The server was restarted",
}
"""Reasons in words. Any other reason is its own words."""


class Session(ControlledSession):
    """Made by the registry."""

    def __init__(self, row: SessionRow, config: SessionConfig, desktop: Desktop, context: SessionContext) -> None:
        super().__init__(row, config, desktop, context)
        self.agent: RecordedAgent
        self.extra_tools: ExtraTools | None = None
        """Functions that a client offers to the agent from its next turn on."""
        self.desktop_left = False
        """Its desktop could not be removed at its end; the registry tries again."""
        platform = config.platform or context.settings.platform
        self.uploads = Uploads(self.store, resolve(config.model or context.settings.model, platform).images)
        self.bare_desktop = desktop
        self.human = HumanSteps(self)
        self._admission = asyncio.Lock()
        """Held while a message is accepted, the history is cleared or the session is ended."""
        self._user_messages = row.user_messages

    @classmethod
    async def make(
        cls,
        row: SessionRow,
        config: SessionConfig,
        desktop: Desktop,
        context: SessionContext,
        history: list[dict[str, Any]],
    ) -> Session:
        """Put the parts of a session together; nothing runs yet."""
        session = cls(row, config, desktop, context)
        await session._make_agent(history)
        return session

    async def _make_agent(self, history: list[dict[str, Any]]) -> None:
        """``bare_desktop`` is the agent's; clients get it as the agent's record wants it."""
        request = AgentRequest(self.id, self.config, self.bare_desktop, self.gate, history, self.usage, self.steps)
        self.agent = await self.context.make_agent(request)
        self.desktop = self.agent.client_desktop(self.bare_desktop, self.mask)

    async def send(self, content: object, metadata: object = None, *, when: When = "idle", **fields: Any) -> str:
        """Accept a message and start the agent's turn; return its id once it is on disk.

        While a turn runs: ``idle`` is refused, ``next`` waits for the agent's next request and is part of the turn,
        ``now`` stops the turn first. ``fields`` are what else it may have; see :func:`.message.checked`. A message that
        has any waits for no turn.

        Raises :class:`InvalidRequest`, :class:`SessionEnded`, :class:`TurnRunning`, :class:`MessageLimitReached`,
        :class:`RecordFull` or :class:`StoreUnavailable`; then nothing is stored.
        """
        text, extra, options = await checked(self, content, metadata, fields)
        message_id = new_message_id()
        if when == "now" and self.turn is not None and self.life.working:
            self._check_limits()
            await self.stop()
            await self.turn.ended()
        async with self._admission:
            plain = fields.get("answer_schema") is None and not options.images
            if when == "next" and plain and self.life.phase is Phase.WORKING:
                self._check_limits()
                if await self._queued(message_id, text, extra):
                    return message_id
            self._require_ready("A message is refused")
            self._check_limits()
            await self._wind_up()
            if self.turn is not None and self.turn.broken_off:
                await self._renew_agent()
            changes = {"turn_message_id": message_id, "user_messages": self._user_messages + 1}
            message = self.store.messages.appending(message_id, self.id, "user", text, extra, self.now())
            operations = [message, self.store.sessions.updating(self.id, **changes)]
            event = events.UserMessage(message_id, text, extra)
            await self.journal.emit(self.stamped(event), operations=operations, refusable=True)
            self._user_messages += 1
            self.turn_message_id = message_id
            self.touch()
            self.life.move(Phase.WORKING)
            self.hold()
            self.show("thinking")
            self.turn = SessionTurn(self, message_id, text, options)
            return message_id

    async def _queued(self, message_id: str, text: str, metadata: dict[str, Any]) -> bool:
        """Store a message that is to be delivered during the turn; false when the turn ended meanwhile."""
        if len(self.gate.messages) >= MOST_QUEUED:
            raise SessionConflict(f"{MOST_QUEUED} messages wait for the agent.", hint="Send it when it has read them.")
        turn, queued = self.turn, self.stamped(events.MessageQueued(message_id, text, metadata))
        count = self.store.sessions.updating(self.id, user_messages=self._user_messages + 1)
        await self.journal.emit(queued, operations=[count], refusable=True)
        if self.turn is not turn or self.life.phase is not Phase.WORKING:
            return False
        self._user_messages += 1
        self.gate.messages.append(QueuedMessage(message_id, text))
        self.touch()
        return True

    async def take_back(self, message_id: str) -> None:
        """Withdraw a message that waits for the agent's next request. :class:`SessionConflict` when it does not."""
        self.require_live()
        if not self.gate.take_back(message_id):
            raise SessionConflict("This message does not wait any more.", hint="The agent has it, or its turn ended.")
        self._user_messages -= 1
        count = self.store.sessions.updating(self.id, user_messages=self._user_messages)
        withdrawn = self.stamped(events.MessageWithdrawn(message_id, "It was taken back"))
        await self.journal.emit(withdrawn, operations=[count])

    async def clear_history(self) -> int:
        """Forget the conversation, the agent's memory of it included; return how many messages there were.

        Raises :class:`TurnRunning` while the agent works, :class:`SessionEnded`, :class:`StoreUnavailable`.
        """
        async with self._admission:
            self._require_ready("The history cannot be cleared")
            await self._wind_up()
            row = await self.store.sessions.get(self.id)
            count = 0 if row is None else row.message_count
            operations = [self.store.messages.clearing(self.id), self.store.transcript.clearing(self.id)]
            cleared = self.stamped(events.ConversationCleared(count))
            await self.journal.emit(cleared, operations=operations, refusable=True)
            self.agent.clear()
            self.gate.note = None
            self.touch()
            return count

    async def change(
        self, *, name: str | None = None, approval: str | list[str] | None = None, display: str | None = None
    ) -> None:
        """Change what may be changed while it lives, all of it or nothing; what is ``None`` stays."""
        self.require_live()
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
        changes = [] if approval is None else [self.stamped(events.PolicyChanged(approval))]
        await self.journal.emit(*changes, operations=[operation])
        self.context.changed(self)

    async def end(self, reason: str, status: SessionStatus = "inactive") -> bool:
        """Stop the turn, tell readers and viewers, remove the desktop. False: the store has not taken the end yet.

        Raises :class:`SessionEnded` if another caller ends it already.
        """
        async with self._admission:
            if self.life.over:
                raise SessionEnded("The session is over already.", hint="Start a new one.")
            self.end_reason = reason
            self.life.move(Phase.ENDING)
        words, recorded = REASONS.get(reason, reason), True
        try:
            await self._stop_turn(words)
            recorded = await self._record_end(reason, status)
        finally:
            if recorded:  # else readers wait for the last event, which the journal still tries to write
                self.journal.broadcast.close()
            await self._close(words)
        return recorded

    async def watch_desktop(self) -> None:
        """Wait until the desktop is lost, then end the turn and have the session ended."""
        reason = await self.desktop.lost()
        self.gate.halt(DesktopLost(reason, hint="Start a new session."))  # before the end stops the turn
        self.context.failed(self.id, reason)

    async def suspend(self) -> None:
        """Leave the session to the server's next start: its desktop goes on, its turn does not."""
        async with self._admission:
            if self.life.over:
                return
            working = self.life.working
            self.life.move(Phase.ENDING)
        words = REASONS["shutdown"]
        await self._stop_turn(words)
        if working and self.state != "error":
            self.show("idle")
            await self.journal.post(self.stamped(events.StatusChanged("idle", words)))
        self.close_viewers(words)
        await self.journal.aclose(RECORD_SECONDS)
        await self.agent.aclose()
        self.life.move(Phase.ENDED)

    async def _stop_turn(self, words: str) -> None:
        if self.turn is not None:
            self.gate.stop()
            await self.turn.cut_off(words)

    async def _record_end(self, reason: str, status: SessionStatus) -> bool:
        self.status, self.ended_at = status, self.now()
        self.show("error" if status == "error" else "ended")
        particulars = {"event": "ended", "reason": reason, "session_status": status}
        event = events.StatusChanged(self.state, REASONS.get(reason, reason), particulars)
        changes = {"status": status, "ended_at": self.ended_at, "end_reason": reason, "turn_message_id": None}
        operation = self.store.sessions.updating(self.id, **changes, steps=self.steps, usage=asdict(self.usage))
        await self.journal.post(self.stamped(event), operations=[operation])
        return await self.journal.drain(RECORD_SECONDS)

    async def _close(self, words: str) -> None:
        """Release what the session holds, each part even if another fails."""
        self.close_viewers(words)
        await attempt("closing the agent", self.agent.aclose(), self.id, CLOSE_SECONDS)
        self.desktop_left = not await attempt("removing the desktop", self.desktop.close(), self.id, CLOSE_SECONDS)
        if self.config.record and not self.desktop.recorded:
            await attempt("writing the run file", keep(self.store, self.id, self.config.record), self.id)
        self.life.move(Phase.ENDED)

    async def _renew_agent(self) -> None:
        """Replace an agent that may remember more than what is stored."""
        history = await stored_conversation(self.store, self.id)
        await self.agent.aclose()
        await self._make_agent(history)
        self.turn = None

    def _require_ready(self, what: str) -> None:
        self.require_live()
        if self.life.phase is not Phase.READY:
            raise TurnRunning(f"{what}: the agent is at work.", hint="Wait for its answer, or stop it.")

    def _check_limits(self) -> None:
        limit = self.config.max_messages
        if limit is not None and self._user_messages >= limit:
            raise MessageLimitReached(
                f"This session takes {limit} messages, and they have been sent.", hint="Start a new session."
            )
        if problem := self.quota.problem(self.record_bytes):
            raise RecordFull(problem.words, hint=f"Start a new session, or raise the setting {problem.name}.")

    async def _wind_up(self) -> None:
        """Wait for the latest turn's task: the answer is shown a moment before the agent has closed its turn."""
        if self.turn is not None and not await self.turn.ended():
            raise self.journal.failure or TurnRunning("The agent is still ending its turn.", hint="Try again.")
