"""What people do to a session while its agent works: stop, pause, approve, take mouse and keyboard; or leave it.

A session that no client uses, or whose time is up, expires. Durations are measured with the monotonic clock: setting
the wall clock ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from cambio_lab.agent.tools import HAND_OVER
from cambio_lab.errors import CambioError, SessionConflict, SessionEnded, StoreUnavailable
from cambio_lab.events import ControlChanged, HumanInput, timestamp

from . import Viewer
from .human import HumanSteps, check_answer
from .state import Phase, SessionState
from .turn import SessionTurn

logger = logging.getLogger(__name__)
T = TypeVar("T")
RELEASE_SECONDS = 2.0  # for the agent's keys and buttons to come up when a viewer takes control
LOOK_SECONDS = 1.0  # how often each session is looked at
WARNING_SECONDS = 60.0
WARNING_FRACTION = 0.2
"""A session that lives less than five minutes is warned this fraction of its life before its end..."""
MIN_WARNING_SECONDS = 1.5 * LOOK_SECONDS
"""...but early enough that one look falls between the warning's time and the end..."""
MAX_WARNING_FRACTION = 0.9
"""...and not at its start: a session that is in use has all of its idle time left."""


class ControlledSession(SessionState):
    """Holds the agent before its next action while a viewer has control or a client has paused it."""

    human: HumanSteps
    turn: SessionTurn | None = None
    """The latest turn."""

    @property
    def turn_task(self) -> asyncio.Task[None] | None:
        """The latest turn's task."""
        return None if self.turn is None else self.turn.task

    async def stop(self, message_id: str | None = None) -> None:
        """End the running turn now; without one, nothing happens.

        ``message_id`` names the turn to stop. :class:`SessionConflict` when that turn has ended already.
        """
        self.require_live()
        running = self.turn_message_id if self.life.working else None
        if message_id is not None and message_id != running:
            raise SessionConflict("This turn has ended already; nothing was stopped.", hint="Stop names another turn.")
        if self.life.phase is Phase.WORKING:
            self.life.move(Phase.STOPPING)
        if self.life.phase is Phase.STOPPING:
            self.gate.stop()

    async def approve(self, tool_use_id: str | None = None, by: str = "") -> None:
        """Allow the call that waits; :class:`SessionConflict` when none (or another) does."""
        self._decide(tool_use_id, True, by)

    async def deny(self, tool_use_id: str | None = None, by: str = "") -> None:
        """Refuse the call that waits."""
        self._decide(tool_use_id, False, by)

    async def answer(self, text: str, tool_use_id: str | None = None, by: str = "") -> None:
        """Answer the agent's question, or hand the desktop back (``text`` may be empty then).

        Raises :class:`SessionConflict` when it does not wait, :class:`InvalidRequest` for what is no answer to it.
        """
        self.require_live()
        asked = self.gate.question
        if asked is None or tool_use_id not in (None, asked.tool_use_id):
            raise SessionConflict("No such question waits for an answer.", hint="It was answered or timed out.")
        if asked.tool == HAND_OVER:
            await self._report_people()
        if not self.gate.answer(asked.tool_use_id, self.mask.text(check_answer(asked, text)), by):
            raise SessionConflict("No question waits for an answer.", hint="It was answered or timed out meanwhile.")
        self.touch()
        if asked.tool == HAND_OVER:
            await self.give_back()
        self.hold()

    async def pause(self) -> None:
        """Hold the agent before its next action; without a running turn, nothing happens."""
        self.require_live()
        self.paused = self.paused or self.life.working
        self.hold()

    async def resume(self) -> None:
        """Let the agent go on. :class:`SessionConflict` while a viewer has control."""
        self.require_live()
        if self.control is not None:
            raise SessionConflict(f"{self.control} has control.", hint="The agent goes on when it is given back.")
        self.paused = False
        self.hold()

    async def take_control(self, viewer: str) -> None:
        """Give control to a viewer; the agent pauses until it is given back. The last who takes it has it."""
        self.require_live()
        if self.control != viewer:
            self.control = viewer
            self.hold()
            self.touch()
            await self.journal.emit(self.stamped(ControlChanged(viewer)))
            if self.control == viewer:
                await self.release_input()

    async def give_back(self, viewer: str | None = None) -> None:
        """Give control back to the agent; nothing happens when ``viewer`` does not have it."""
        self.require_live()
        if self.control is not None and viewer in (None, self.control):
            await self._report_people()
            self.control = None
            self.hold()
            await self.journal.emit(self.stamped(ControlChanged(None)))

    async def _report_people(self) -> None:
        """Have what people did recorded before the agent goes on."""
        for viewer in list(self.viewers):
            viewer.report()
        await self.human.recorded()

    async def hand_back(self, viewer: str) -> None:
        """Give control back because its viewer says so, which also ends a hand-over."""
        if self.gate.handed_over and self.control in (None, viewer):
            await self.answer("", by=viewer)
        await self.give_back(viewer)

    def may_act(self, viewer: str) -> bool:
        """Whether a viewer's input counts: it has control, or no viewer has and the agent is idle or handed over."""
        return self.control == viewer or (self.control is None and (not self.life.working or self.gate.handed_over))

    async def release_input(self) -> None:
        """Release what the agent holds down while a viewer has control: Xvnc hears only who holds a button.

        A call that runs is not disturbed; the turn comes here again once it has ended.
        """
        if self.turn is None or self.turn.finished or self.turn.acting:
            return
        with suppress(CambioError, TimeoutError):  # a desktop that is gone holds nothing
            async with asyncio.timeout(RELEASE_SECONDS):
                await self.desktop.release_all()

    async def record_human_input(self, event: HumanInput) -> None:
        """Note that a person used the desktop; how much, never what."""
        self.require_live()
        self.touch()
        await self.journal.post(self.stamped(event))

    def add_viewer(self, viewer: Viewer) -> None:
        """``viewer.session_ended`` is called when the session ends. :class:`SessionEnded` if it has."""
        self.require_live()
        self.touch()
        self.viewers.add(viewer)

    async def remove_viewer(self, viewer: Viewer) -> None:
        """A viewer left; if it had control and no other of its name is left, the agent has it again."""
        self.viewers.discard(viewer)
        await self.leave(viewer.name)

    async def leave(self, viewer: str) -> None:
        """A connection of this viewer closed: give its control back, unless the viewer still watches the desktop."""
        if not self.life.over:
            self.touch()
            if viewer == self.control and all(other.name != viewer for other in self.viewers):
                await self.give_back(viewer)

    def _decide(self, tool_use_id: str | None, approve: bool, by: str) -> None:
        self.require_live()
        if not self.gate.decide(tool_use_id, approve, by):
            raise SessionConflict("Nothing waits for approval.", hint="It was decided or timed out meanwhile.")

    def close_viewers(self, reason: str) -> None:
        while self.viewers:
            self.viewers.pop().session_ended(reason)


def warning_time(span: float) -> float:
    """Return how many seconds before its end a session is warned that lives ``span`` seconds."""
    least = min(MIN_WARNING_SECONDS, span * MAX_WARNING_FRACTION)
    return max(least, min(WARNING_SECONDS, span * WARNING_FRACTION))


async def expired(session: SessionState) -> str | None:
    """Return the reason to end ``session`` now, if there is one; warn its readers when that is near."""
    if session.in_use:
        session.touch()
    settings, config, now = session.context.settings, session.config, session.clock.monotonic()
    life = settings.session_timeout if config.timeout is None else config.timeout
    idle = settings.idle_timeout if config.idle_timeout is None else config.idle_timeout
    for reason, began, span, why in (
        ("timeout", session.began, life, "its time is up"),
        ("idle", session.active_at, idle, "no client uses it"),
    ):
        left = began + span - now
        if not span:
            continue
        if left <= 0:
            return reason
        if left > warning_time(span):
            session.warned.discard(reason)  # a client came back: it may become due again
        elif reason not in session.warned:
            session.warned.add(reason)
            particulars = {"reason": reason, "seconds_left": round(left), "ends_at": timestamp(session.now() + left)}
            await session.warn(f"This session ends in {left:.0f} s: {why}", {"event": "expiring", **particulars})
    return None


async def expire(sessions: Sequence[SessionState], end: Callable[[str, str], None]) -> None:
    """Call ``end`` with the id of each session whose time is up, and the reason; one's trouble is not the others'."""
    for session in sessions:
        try:
            if not session.life.over and (reason := await expired(session)) is not None:
                end(session.id, reason)
        except Exception:
            logger.exception("expiry not checked: session=%s", session.id)


async def attempt(what: str, doing: Awaitable[object], name: str, seconds: float | None = None) -> bool:
    """Wait for ``doing``, at most ``seconds``; a failure is logged. Return whether it was done."""
    try:
        async with asyncio.timeout(seconds):
            await doing
    except Exception:
        logger.exception("%s failed: %s", what, name)
        return False
    return True


class OwnedTasks:
    """The tasks of one owner. A failure is logged as soon as it happens."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelled = False

    def own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start ``work``; the task may be awaited, and need not be."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def repeat(self, seconds: float, work: Callable[[], Awaitable[object]], name: str) -> None:
        """Do ``work`` again and again, with ``seconds`` between; a failure costs that one time."""

        async def repeating() -> None:
            await asyncio.sleep(LOOK_SECONDS)
            while not self._cancelled:  # also when what ran took no notice of being cancelled
                await attempt("housekeeping", work(), name)
                await asyncio.sleep(0 if self._cancelled else seconds)

        self.own(repeating(), name)

    async def cancel(self) -> None:
        """Cancel what still runs and wait until it has ended."""
        self._cancelled = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, SessionEnded | StoreUnavailable):
                logger.info("%s: %s", task.get_name(), error)
            else:
                logger.error("%s failed", task.get_name(), exc_info=error)
