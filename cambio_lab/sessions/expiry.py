"""Sessions end by themselves: after their time, or when nobody is there. They say so before.

How long something lasts is measured with the monotonic clock: setting the wall clock ends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cambio_lab.events import StatusChanged
from cambio_lab.settings import Settings

from .session import Session
from .views import iso

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
