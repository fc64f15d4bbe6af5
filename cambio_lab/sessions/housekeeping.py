"""What is done beside the sessions: they expire, records are measured, left desktops removed, webhooks called.

Durations are measured with the monotonic clock: setting the wall clock ends nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from cambio_lab.agent.gate import LimitReached
from cambio_lab.errors import ConfigurationError, SessionEnded, StoreUnavailable
from cambio_lab.events import timestamp
from cambio_lab.recording import prune, sweep
from cambio_lab.settings import Settings
from cambio_lab.store import Store

if TYPE_CHECKING:
    from .session import Session

logger = logging.getLogger(__name__)
T = TypeVar("T")
REAP_SECONDS = 2.0
"""Between attempts to remove desktops that could not be removed."""
RECORDS_SECONDS = 30.0
"""Between looks at the size of all records."""
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


def deadlines(session: Session) -> list[Due]:
    """Return each limit of the session's life."""
    settings, config, now = session.context.settings, session.config, session.clock.monotonic()
    life = settings.session_timeout if config.timeout is None else config.timeout
    idle = settings.idle_timeout if config.idle_timeout is None else config.idle_timeout
    found = [Due("timeout", session.began + life - now, life), Due("idle", session.active_at + idle - now, idle)]
    return [due for due in found if due.span]


async def expired(session: Session) -> str | None:
    """Return the reason to end ``session`` now, if there is one; warn its readers when that is near."""
    if session.in_use:
        session.touch()
    for due in deadlines(session):
        if due.left <= 0:
            return due.reason
        if not due.warn:
            session.warned.discard(due.reason)  # a client came back: it may become due again
        elif due.reason not in session.warned:
            session.warned.add(due.reason)
            why = "its time is up" if due.reason == "timeout" else "no client uses it"
            ends_at = timestamp(session.now() + due.left)
            particulars = {"reason": due.reason, "seconds_left": round(due.left), "ends_at": ends_at}
            await session.warn(f"This session ends in {due.left:.0f} s: {why}", {"event": "expiring", **particulars})
    return None


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
                try:
                    await work()
                except Exception:
                    logger.exception("%s failed", name)
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


async def expire(sessions: Sequence[Session], end: Callable[[str, str], None]) -> None:
    """Call ``end`` with the id of each session whose time is up, and the reason; one's trouble is not the others'."""
    for session in sessions:
        try:
            if not session.life.over and (reason := await expired(session)) is not None:
                end(session.id, reason)
        except Exception:
            logger.exception("expiry not checked: session=%s", session.id)


MB = 1_000_000
WARN_AT = 0.8
"""Of a session's limit, and of the limit of all records."""
PRUNE_TO = 0.9
"""Oldest runs are removed until the records take at most this share of their limit."""
FRESH_SECONDS = 60.0
"""Screenshots that were stored this recently are spared: a running session may be about to name them."""


class Quota:
    """The limits of one server. ``full`` is true while all records together take more than they may."""

    def __init__(self, settings: Settings) -> None:
        self._session_bytes = settings.max_record_mb * MB
        self._total_bytes = settings.max_records_mb * MB
        self.full = False
        self._warned = False

    def problem(self, session_bytes: int) -> LimitReached | None:
        """Return the limit that a session with this much recorded has reached, or ``None``."""
        if self._session_bytes and session_bytes >= self._session_bytes:
            words = f"The recording of this session has reached its limit of {self._session_bytes / MB:g} MB."
            return LimitReached("max_record_mb", words)
        if self.full:
            words = f"All recordings together have reached their limit of {self._total_bytes / MB:g} MB."
            return LimitReached("max_records_mb", words)
        return None

    def warning(self, before: int, now: int) -> tuple[str, dict[str, Any]] | None:
        """Return words, and metadata of a status, when a session's record grew past :data:`WARN_AT` of its limit."""
        near = self._session_bytes * WARN_AT
        if not self._session_bytes or not before < near <= now:
            return None
        words = f"The recording takes {now / MB:.1f} MB; the turn ends at {self._session_bytes / MB:g} MB."
        return words, _metadata("max_record_mb", now, self._session_bytes)

    async def look(self, store: Store, sessions: Iterable[Session]) -> None:
        """Measure all records. Warn when their limit is near; at the limit remove the oldest runs, else end turns."""
        if not self._total_bytes:
            return
        total = await _size(store)
        if total >= self._total_bytes:
            await self._prune(store)
            total = await _size(store)
            self.full = total >= self._total_bytes
        else:
            self.full = False
        near = total >= self._total_bytes * WARN_AT
        for session in list(sessions):
            if self.full:
                await session.record_grew(session.record_bytes)
            elif near and not self._warned:
                await session.warn(*await self._total_warning(store, total))
        if near and not self._warned:
            logger.warning("records near their limit: bytes=%d limit=%d", total, self._total_bytes)
        self._warned = near

    async def _prune(self, store: Store) -> None:
        removed = await prune(store, most=int(self._total_bytes * PRUNE_TO))
        freed = await sweep(store, FRESH_SECONDS)
        logger.warning("records at their limit; oldest runs removed: runs=%d bytes=%s", removed, freed)

    async def _total_warning(self, store: Store, total: int) -> tuple[str, dict[str, Any]]:
        """Name the run that is removed first, so that a person can pin or export it in time."""
        first = next((session_id for session_id, _ in await store.sessions.removable()), None)
        words = f"All recordings take {total / MB:.0f} MB of {self._total_bytes / MB:g} MB; "
        words += f"the oldest run, {first}, is removed first." if first else "no ended run is left to remove."
        return words, _metadata("max_records_mb", total, self._total_bytes) | {"next_removed": first}


def _metadata(limit: str, now: int, most: float) -> dict[str, Any]:
    return {"event": "record_limit_near", "limit": limit, "bytes": now, "limit_bytes": int(most)}


async def _size(store: Store) -> int:
    return await store.screenshots.disk_bytes() + await store.database.live_bytes()


WEBHOOK_SECONDS = 10.0
MOST_NOTIFICATIONS = 20
"""Messages that wait for a slow service; more are dropped, with a line in the log."""
LONGEST_NOTIFICATION = 3_000


class Webhook:
    """Posts ``{"text": ...}``, as Slack, Mattermost and Discord's Slack address take it; :meth:`run` sends."""

    def __init__(self, url: str) -> None:
        """``url`` may be a secret: it is in no log."""
        if url and urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError("webhook_url must begin with https:// or http://.")
        self._url = url
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MOST_NOTIFICATIONS)

    def notify(self, session: str, question: str, choices: Sequence[str] = ()) -> None:
        """Say that the agent of ``session`` asks ``question``. Without a URL, nothing happens."""
        if not self._url:
            return
        offered = f" ({' / '.join(choices)})" if choices else ""
        text = f"{escape(session)} asks: {escape(question + offered)[:LONGEST_NOTIFICATION]}"
        try:
            self._waiting.put_nowait(text)
        except asyncio.QueueFull:
            logger.warning("webhook too slow; message dropped")

    async def run(self) -> None:
        """Send what there is to say, one message after the other, until cancelled. A failure costs its message."""
        while True:
            text = await self._waiting.get()
            try:
                await asyncio.to_thread(self._post, text)
            except (OSError, ValueError) as error:  # urllib's errors name the URL's host at most
                logger.warning("webhook not reached: error=%s", type(error).__name__)

    def _post(self, text: str) -> None:
        body, headers = json.dumps({"text": text}).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=WEBHOOK_SECONDS) as response:
            response.read(65_536)


def escape(text: str) -> str:
    """Return ``text`` without what Slack reads as links or as mentions: it may come from a desktop."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
