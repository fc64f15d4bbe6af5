"""How a session ends: once, in order, with everything released; after its time or without a client, with a warning.

How long something lasts is measured with the monotonic clock: setting the wall clock ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from cambio_lab.errors import CambioError, SessionEnded
from cambio_lab.events import StatusChanged
from cambio_lab.replay.binding import keep
from cambio_lab.settings import Settings
from cambio_lab.store import SessionStatus

from .session import Session
from .state import Phase
from .views import iso

logger = logging.getLogger(__name__)
TURN_SECONDS = 3.0
"""For a running turn to end well once it was told to stop."""
RECORD_SECONDS = 5.0
"""For the store to take the end; it goes on trying behind the caller's back."""
CLOSE_SECONDS = 20.0
"""For the desktop to be removed."""

REASONS = {
    "request": "The session was ended",
    "timeout": "The session's time is up",
    "idle": "Nobody used the session",
    "shutdown": "The server is stopping",
    "restart": "The server was restarted",
}
"""Reasons in words. Any other reason is its own words."""


async def end_session(session: Session, reason: str, *, status: SessionStatus = "inactive") -> bool:
    """Stop its turn, tell everybody, remove its desktop. False when the store has not taken the end yet.

    Raises :class:`SessionEnded` if someone else ends it already.
    """
    async with session.admission:
        if session.life.over:
            raise SessionEnded("The session is over already.", hint="Start a new one.")
        session.end_reason = reason
        session.life.move(Phase.ENDING)
    recorded = True
    try:
        await stop_turn(session, REASONS.get(reason, reason))
        recorded = await _record_end(session, reason, status)
    finally:
        if recorded:  # else its readers wait for the last words, which the journal still tries to write
            session.journal.broadcast.close()
        await _give_back(session, REASONS.get(reason, reason))
    return recorded


async def suspend_session(session: Session) -> None:
    """Leave the session as it is for the server's next start: its desktop goes on, its turn does not."""
    async with session.admission:
        if session.life.over:
            return
        working = session.life.working
        session.life.move(Phase.ENDING)
    await stop_turn(session, "The server is stopping")
    if working and session.state != "error":
        session.show("idle")
        await session.journal.post(session.moment(StatusChanged("idle", "The server is stopping")))
    for viewer in list(session.viewers):
        viewer.session_ended("The server is stopping")
    await session.journal.aclose(RECORD_SECONDS)
    await session.agent.aclose()
    session.life.move(Phase.ENDED)


async def stop_turn(session: Session, why: str) -> None:
    """End a running turn: well if it can be, else by cutting it off. It gets its one end in any case."""
    task = session.turn_task
    if task is None or task.done():
        return
    session.gate.stop()
    await asyncio.wait({task}, timeout=TURN_SECONDS)
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        if session.turn is not None and session.journal.failure is None:
            await session.turn.abandon("The turn was ended", f"{why}.")


async def _record_end(session: Session, reason: str, status: SessionStatus) -> bool:
    session.status = status
    session.ended_at = session.now()
    session.show("error" if status == "error" else "ended")
    words = REASONS.get(reason, reason)
    event = StatusChanged(session.state, words, {"event": "ended", "reason": reason, "session_status": status})
    operation = session.store.sessions.updating(
        session.id,
        status=status,
        ended_at=session.ended_at,
        end_reason=reason,
        steps=session.steps,
        usage=asdict(session.usage),
        turn_message_id=None,
    )
    await session.journal.post(session.moment(event), operations=[operation])
    return await session.journal.drain(RECORD_SECONDS)


async def _give_back(session: Session, words: str) -> None:
    """Everything the session holds, each part even if another fails."""
    for viewer in list(session.viewers):
        viewer.session_ended(words)
    session.viewers.clear()
    for name, closing in (("agent", session.agent.aclose()), ("desktop", session.desktop.close())):
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await closing
        except Exception:
            logger.exception("session %s: its %s could not be closed", session.id, name)
            session.desktop_left = session.desktop_left or name == "desktop"
    await _keep_recording(session)
    session.life.move(Phase.ENDED)


async def _keep_recording(session: Session) -> None:
    """Write the file that the session is bound to, unless it was replayed from it."""
    record = session.config.record
    if not record or session.desktop.recorded:
        return
    try:
        await keep(session.store, session.id, record)
    except (CambioError, OSError):
        logger.exception("session %s: its recording could not be written", session.id)


LOOK_SECONDS = 1.0
"""How often each session is looked at."""
WARNING_SECONDS = 60.0
WARNING_SHARE = 0.2
"""A short life is warned of later: this share of it before its end..."""
LEAST_SECONDS = 1.5 * LOOK_SECONDS
"""...but early enough that one look falls between the warning's time and the end."""
NEVER_AT_ONCE = 0.9
"""Of a life that short, at most this share is warned of: a session that is used has all of it left."""


@dataclass(frozen=True, slots=True)
class Due:
    """A reason to end, and how many seconds are left until it does (negative: over)."""

    reason: str
    left: float
    span: float

    @property
    def warn(self) -> bool:
        least = min(LEAST_SECONDS, self.span * NEVER_AT_ONCE)
        return self.left <= max(least, min(WARNING_SECONDS, self.span * WARNING_SHARE))


class Expiry:
    """Looks at one session after another; remembers which were warned."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._warned: dict[tuple[str, str], float] = {}

    async def look(self, session: Session) -> str | None:
        """The reason to end ``session`` now, if there is one; warns it when that is near."""
        if session.life.working or session.viewers or len(session.journal.broadcast):
            session.touch()
        for due in self._dues(session):
            if due.left <= 0:
                return due.reason
            await self._warn(session, due)
        return None

    def forget(self, session: Session) -> None:
        for reason in ("timeout", "idle"):
            self._warned.pop((session.id, reason), None)

    def _dues(self, session: Session) -> Iterator[Due]:
        now = session.clock.monotonic()
        if life := session.config.life_seconds(self._settings):
            yield Due("timeout", session.began + life - now, life)
        if idle := session.config.idle_seconds(self._settings):
            yield Due("idle", session.active_at + idle - now, idle)

    async def _warn(self, session: Session, due: Due) -> None:
        key = (session.id, due.reason)
        if not due.warn:
            self._warned.pop(key, None)  # somebody came back: it may become due again
        elif key not in self._warned:
            self._warned[key] = due.left
            ends_at = session.now() + due.left
            what = "its time is up" if due.reason == "timeout" else "nobody uses it"
            event = StatusChanged(
                session.state,
                f"This session ends in {due.left:.0f} s: {what}",
                {"event": "expiring", "reason": due.reason, "seconds_left": round(due.left), "ends_at": iso(ends_at)},
            )
            await session.journal.post(session.moment(event))
