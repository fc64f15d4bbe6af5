"""One turn: takes the agent's events one by one and stores each before the agent goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cambio_lab import events
from cambio_lab.agent.options import TurnOptions
from cambio_lab.errors import CambioError
from cambio_lab.store import Operation, StepRow, new_message_id
from cambio_lab.store.rows import Role

from .state import Phase

if TYPE_CHECKING:
    from .session import Session

logger = logging.getLogger(__name__)
WIND_UP_SECONDS = 5.0
"""For the agent to close an ended turn before the next message."""
STOP_SECONDS = 3.0
"""For a running turn to end well once it was told to stop."""
MAX_THINKING = 100_000
"""Characters of the thinking of one reply that are kept."""
WITHOUT_WORDS = {"answered": "Handed back", "timeout": "No answer came in time", "stopped": "The turn was stopped"}


class SessionTurn:
    """The work on one user message. ``finished`` is true once its end was kept and shown."""

    def __init__(self, session: Session, message_id: str, content: str, options: TurnOptions) -> None:
        """Starts the turn's task."""
        self.message_id = message_id
        self.finished = False
        self.fatal: str | None = None
        """Why the session cannot go on, when it cannot."""
        self.broken_off = False
        """The agent's memory may differ from what is stored; the next turn begins with what is stored."""
        self._session = session
        self._store = session.store
        self._content = content
        self._options = options
        self._spent_before = session.usage
        self._began = session.clock.monotonic()
        self._steps: dict[int, StepRow] = {}
        """The calls that run, as they were begun."""
        self._reply: events.ModelReplied | None = None
        """The latest reply, until its first call tells what it said and cost."""
        self._said: list[dict[str, Any]] = []
        self._dropping: events.HistoryDropped | None = None
        self._tool_calls: list[str] = []
        self._denied: set[str] = set()
        """Ids of the calls that a person denied, or did not approve in time."""
        self._thinking: list[str] = []
        """What the model thought since its latest reply."""
        self.task = asyncio.create_task(self._run(), name=f"turn of session {session.id}")

    @property
    def acting(self) -> bool:
        """Whether a call runs right now."""
        return bool(self._steps)

    async def _run(self) -> None:
        """Carry the turn to its one end. Cancelling leaves it without: :meth:`cut_off` gives it one."""
        try:
            await self._session.agent.run(self._content, self._take, options=self._options)
        except CambioError as error:
            logger.warning("session %s: the turn failed: %s", self._session.id, error.describe())
            await self._break_off(error.message, error.hint)
        except Exception:
            logger.exception("session %s: the turn failed", self._session.id)
            await self._break_off("The turn failed inside the server.", "Its log has the particulars. Send it again.")
        else:
            if not self.finished:
                logger.error("session %s: the agent ended a turn without saying how", self._session.id)
                await self._break_off("The turn ended without an answer.", "Send the message again.")

    async def ended(self) -> bool:
        """Wait until the agent has closed its turn; false when it takes longer than :data:`WIND_UP_SECONDS`."""
        if not self.task.done():
            await asyncio.wait({self.task}, timeout=WIND_UP_SECONDS)
        return self.task.done()

    async def cut_off(self, words: str) -> None:
        """End a turn that was told to stop, by cancelling it if need be; it gets its one end either way."""
        if self.task.done():
            return
        await asyncio.wait({self.task}, timeout=STOP_SECONDS)
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait({self.task})
            if self._session.journal.failure is None:
                await self._break_off("The turn was ended", f"{words}.")

    async def _take(self, event: events.Event) -> None:
        if self._dropping is not None and not isinstance(event, events.HistoryAppended):
            await self._history(None)
        if isinstance(event, events.HistoryDropped):
            self._dropping = event  # stored together with what comes next
            return
        if isinstance(event, events.ThinkingDelta):
            self._thinking.append(event.text)
        elif isinstance(event, events.Retrying):
            self._thinking.clear()  # of a reply that broke off
        handler = _HANDLERS.get(type(event))
        await (handler(self, event) if handler else self._post(event))
        if self._session.life.phase is Phase.STOPPING:  # a stop from before the agent had begun
            self._session.gate.stop()

    async def _history(self, event: events.HistoryAppended | None) -> None:
        """Keep a message, and in the same transaction what it takes the place of: a crash loses neither."""
        session, dropped, operations = self._session, self._dropping, list[Operation[Any]]()
        if dropped is not None:
            operations.append(self._store.transcript.dropping(session.id, dropped.count))
        if event is not None:
            message = event.message
            operations.append(await session.until_stored(lambda: self._store.transcript.appending(session.id, message)))
        self._dropping = None
        rows = [session.stamped(one) for one in (dropped, event) if one is not None]
        await session.journal.emit(*rows, operations=operations)

    async def _post(self, event: events.Event) -> None:
        await self._session.journal.post(self._session.stamped(event))

    async def _status(self, event: events.StatusChanged) -> None:
        self._session.show(event.status)
        await self._post(event)

    async def _asked(self, event: events.ApprovalRequested) -> None:
        self._session.show("waiting_approval")
        await self._session.journal.emit(self._session.stamped(event))
        self._session.context.notify(self._session.name, f"May I do this? {event.shown}", ["approve", "deny"])

    async def _question(self, event: events.QuestionAsked) -> None:
        """Tell of a question; a hand-over lets viewers act from now on."""
        about = {"question": event.tool, "tool_use_id": event.tool_use_id, "choices": event.choices}
        await self._say(event, "waiting", "assistant", event.question, about)
        self._session.context.notify(self._session.name, event.question, event.choices)

    async def _answer(self, event: events.QuestionAnswered) -> None:
        about = {"answer": event.outcome, "tool_use_id": event.tool_use_id, "by": event.by}
        await self._say(event, "acting", "user", event.answer or WITHOUT_WORDS[event.outcome], about)

    async def _say(
        self, event: events.Event, state: events.Status, role: Role, words: str, about: dict[str, Any]
    ) -> None:
        session, about = self._session, about | {"during": self.message_id}
        session.show(state)
        session.hold()
        message = self._store.messages.appending(new_message_id(), session.id, role, words, about, session.now())
        await session.journal.emit(session.stamped(event), operations=[message])

    async def _decided(self, event: events.ApprovalDecided) -> None:
        if event.verdict in ("denied", "timeout"):
            self._denied.add(event.tool_use_id)
        self._session.show("acting")
        await self._session.journal.emit(self._session.stamped(event))

    async def _delivered(self, event: events.MessageDelivered) -> None:
        """Add the message to the history, now that the agent gets it, and keep what the agent had said before."""
        session, reply = self._session, self._reply
        if reply is not None and reply.text:
            self._said.append({"step": session.steps + 1, "content": reply.text})
            self._reply = None
        operations: list[Operation[Any]] = []
        if not event.note:
            metadata, add = {"queued": True, "during": self.message_id}, self._store.messages.appending
            operations.append(add(event.message_id, session.id, "user", event.content, metadata, session.now()))
        await session.journal.emit(session.stamped(event), operations=operations)

    async def _replied(self, event: events.ModelReplied) -> None:
        session = self._session
        session.usage += event.usage
        if self._thinking:
            event = replace(event, thinking="".join(self._thinking)[:MAX_THINKING])
            self._thinking.clear()
        self._reply = event
        operation = self._store.sessions.updating(session.id, usage=asdict(session.usage))
        await session.journal.post(session.stamped(event, turn_usage=self.used), operations=[operation])

    async def _started(self, event: events.ToolStarted) -> None:
        session = self._session
        session.steps = max(session.steps, event.step)
        session.show("acting")
        self._tool_calls.append(event.tool)
        row = self._steps[event.step] = self._begun(event)
        operations = [self._store.steps.appending(row), self._store.sessions.updating(session.id, steps=session.steps)]
        await session.journal.post(session.stamped(event, cost_usd=row.cost_usd), operations=operations)

    async def _finished(self, event: events.ToolFinished) -> None:
        if event.actor == "human":  # in the run that is replayed
            row = self._session.step_row(event, actor="human")
        else:
            row = self._steps.pop(event.step) if event.step in self._steps else self._begun(event)
        await self._session.keep_step(event, row, denied=event.tool_use_id in self._denied)
        if self._session.control is not None:
            await self._session.release_input()

    async def _unseen(self, event: events.Unseen) -> None:
        session, sha256, image = self._session, None, event.image
        if image is not None:
            sha256 = await session.until_stored(lambda: self._store.screenshots.put(image, event.media_type))
        growing = self._store.sessions.growing(session.id, len(image or b"") + len(event.tree))
        results = await session.journal.emit(session.stamped(event, image_sha256=sha256), operations=[growing])
        await session.record_grew(results[-1])

    def _begun(self, event: events.ToolStarted | events.ToolFinished) -> StepRow:
        """Return a call as a row; the first one of a reply has what the reply said and cost."""
        reply, self._reply = self._reply, None
        if reply is not None and reply.text:
            self._said.append({"step": event.step, "content": reply.text})
        cost = None if reply is None else round(reply.usage.cost_usd, 6)
        return self._session.step_row(event, said="" if reply is None else reply.text, cost_usd=cost)

    async def _answered(self, event: events.TurnFinished) -> None:
        session = self._session
        reply_id = new_message_id()
        metadata = {
            "tool_calls": event.tool_calls,
            "processing_time": round(event.processing_time, 3),
            "usage": event.usage.describe(),
            "stopped": event.stopped,
            "limit": event.limit,
            "needs_input": event.needs_input,
            "reply_to": self.message_id,
        }
        optional = {"said": self._said or None, "answer": event.answer}
        metadata |= {name: value for name, value in optional.items() if value is not None}
        message = self._store.messages.appending(reply_id, session.id, "assistant", event.text, metadata, session.now())
        await self._close(event, [message], reply_id)

    async def _failed(self, event: events.TurnFailed) -> None:
        if event.fatal:
            self.fatal = event.error
        await self._close(event, [self._store.steps.interrupting(self._session.id, self._session.now())])

    async def _break_off(self, error: str, details: str) -> None:
        """End with an error of our own, unless the turn has ended already."""
        self.broken_off = True
        if self.finished:
            return
        seconds, calls = self._session.clock.monotonic() - self._began, list(self._tool_calls)
        await self._failed(events.TurnFailed(error, details or error, seconds, self.used, tool_calls=calls))

    @property
    def used(self) -> events.Usage:
        now, before = self._session.usage, self._spent_before
        return events.Usage(**{name: value - getattr(before, name) for name, value in asdict(now).items()})

    async def _close(
        self, event: events.TurnFinished | events.TurnFailed, operations: list[Any], reply_id: str | None = None
    ) -> None:
        """Keep and show the end and the return to ``idle`` as one: a client that sees the answer may send again."""
        session = self._session
        session.usage = self._spent_before + event.usage  # with what a dropped reply had cost
        rows = [session.stamped(event, reply_id=reply_id)]
        while (message := session.gate.next_message(notes=False)) is not None:
            withdrawn = events.MessageWithdrawn(message.message_id, "The turn ended before the agent read it")
            rows.insert(-1, session.stamped(withdrawn))
        session.turn_over(self.fatal)
        if session.state == "idle":
            rows.append(session.stamped(events.StatusChanged("idle", "Waiting for a message")))
        self.finished = True
        changes = {"turn_message_id": None, "steps": session.steps, "usage": asdict(session.usage)}
        operations.append(self._store.sessions.updating(session.id, **changes))
        operations.append(self._store.sessions.growing(session.id, 0))
        results = await session.journal.emit(*rows, operations=operations)
        session.record_bytes = max(session.record_bytes, results[-1])


_HANDLERS: dict[type[events.Event], Callable[[SessionTurn, Any], Awaitable[None]]] = {
    events.HistoryAppended: SessionTurn._history,
    events.StatusChanged: SessionTurn._status,
    events.ApprovalRequested: SessionTurn._asked,
    events.ApprovalDecided: SessionTurn._decided,
    events.QuestionAsked: SessionTurn._question,
    events.QuestionAnswered: SessionTurn._answer,
    events.MessageDelivered: SessionTurn._delivered,
    events.ModelReplied: SessionTurn._replied,
    events.ToolStarted: SessionTurn._started,
    events.ToolFinished: SessionTurn._finished,
    events.Unseen: SessionTurn._unseen,
    events.TurnFinished: SessionTurn._answered,
    events.TurnFailed: SessionTurn._failed,
}
"""Events that mean more than a row and a message; the others are posted as they come."""
