"""When a session ends by itself: after its time, or without a client; with a warning.

Durations are measured with the monotonic clock: setting the wall clock ends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cambio_lab.events import timestamp

from .session import Session

LOOK_SECONDS = 1.0
"""How often each session is looked at."""
WARNING_SECONDS = 60.0
WARNING_FRACTION = 0.2
"""A session that lives less than five minutes is warned this fraction of its life before its end..."""
MIN_WARNING_SECONDS = 1.5 * LOOK_SECONDS
"""...but early enough that one look falls between the warning's time and the end..."""
MAX_WARNING_FRACTION = 0.9
"""...and not at its start: a session that is in use has all of its idle time left."""


@dataclass(frozen=True, slots=True)
class Due:
    """A reason to end, and how many seconds are left until it does (negative: over), of how many."""

    reason: str
    left: float
    span: float

    @property
    def warn(self) -> bool:
        least = min(MIN_WARNING_SECONDS, self.span * MAX_WARNING_FRACTION)
        return self.left <= max(least, min(WARNING_SECONDS, self.span * WARNING_FRACTION))


class Expiry:
    """Looks at one session after another; remembers which were warned."""

    def __init__(self) -> None:
        self._warned: set[tuple[str, str]] = set()

    async def look(self, session: Session) -> str | None:
        """Return the reason to end ``session`` now, if there is one; warn it when that is near."""
        if session.in_use:
            session.touch()
        for reason, left, span in session.deadlines():
            due = Due(reason, left, span)
            if due.left <= 0:
                return due.reason
            await self._warn(session, due)
        return None

    def forget(self, session_id: str) -> None:
        self._warned -= {(session_id, "timeout"), (session_id, "idle")}

    async def _warn(self, session: Session, due: Due) -> None:
        key = (session.id, due.reason)
        if not due.warn:
            self._warned.discard(key)  # a client came back: it may become due again
        elif key not in self._warned:
            self._warned.add(key)
            why = "its time is up" if due.reason == "timeout" else "no client uses it"
            ends_at = timestamp(session.now() + due.left)
            particulars = {"reason": due.reason, "seconds_left": round(due.left), "ends_at": ends_at}
            await session.warn(f"This session ends in {due.left:.0f} s: {why}", {"event": "expiring", **particulars})
