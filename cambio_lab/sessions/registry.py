"""All sessions of a server: create, find, end; start and stop."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from cambio_lab.desktop.provider import DesktopProvider
from cambio_lab.errors import (
    CambioError,
    CapacityReached,
    DesktopUnavailable,
    SessionEnded,
    SessionNotFound,
    StoreUnavailable,
)
from cambio_lab.events import timestamp
from cambio_lab.settings import Settings
from cambio_lab.store import SessionQuery, SessionStatus, Store

from . import Clock, Encode, Feeds, SessionContext, SessionFeed
from .agent import AgentFactory, build_agent
from .config import check_creation
from .control import LOOK_SECONDS, OwnedTasks, expire
from .creation import Creation, Desktops
from .human import Webhook
from .journal import Quota
from .recovery import Recovery
from .session import Session

logger = logging.getLogger(__name__)
REAP_SECONDS = 2.0  # between attempts to remove desktops that could not be removed
RECORDS_SECONDS = 30.0  # between looks at the size of all records
STOP_SECONDS = 8.5
RETRY_STOP_SECONDS = 0.5
"""The two together, and what is cancelled then, take less than ten seconds."""
MAX_ENDED = 10_000
"""Ended sessions that :meth:`Registry.get` can tell from unknown ones without asking the store."""


class Registry:
    """Made by the composition root; belongs to one event loop."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        provider_for: Callable[[str], DesktopProvider],
        encode: Encode,
        make_agent: AgentFactory | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``provider_for`` maps a kind (``auto`` among them) to a provider, the same one each time."""
        self.settings = settings
        self.store = store
        self.clock = clock or time
        self.quota = Quota(settings)
        self._watches = Feeds()
        self._webhook = Webhook(settings.webhook_url)
        self.context = SessionContext(
            settings,
            store,
            encode,
            self.clock,
            self.quota,
            make_agent or partial(build_agent, settings, store),
            changed=self._watches.tell,
            failed=partial(self._end_later, status="error"),
            notify=self._webhook.notify,
        )
        self._live: dict[str, Session] = {}
        self._ended: dict[str, None] = {}
        self._creations: dict[str, Creation] = {}
        self._tasks = OwnedTasks()
        self._lost_watchers: dict[str, asyncio.Task[None]] = {}
        self.desktops = Desktops(provider_for, self._desktops_in_use)
        self._recovery = Recovery(self.context, self.desktops, self._tasks, admit=self.admit, ended=self.note_end)
        self.stopping = False

    # Life of the registry

    async def start(self) -> None:
        """Adopt what an earlier server left, remove its orphans, fill the pool in the background."""
        ended = await self.store.sessions.page(SessionQuery(limit=MAX_ENDED))
        self._ended = {row.id: None for row in reversed(ended.rows) if row.status != "active"}
        self.desktops.provider_for(self.settings.desktop)
        await self._recovery.start()
        await self.desktops.start()
        self._tasks.repeat(LOOK_SECONDS, lambda: expire(self.sessions, self._end_later), "expiry")
        self._tasks.repeat(REAP_SECONDS, self.desktops.reap, "removal of orphaned desktops")
        self._tasks.repeat(RECORDS_SECONDS, lambda: self.quota.look(self.store, self.sessions), "size of all records")
        self._tasks.own(self._webhook.run(), "webhook")

    async def stop(self) -> frozenset[str]:
        """End all sessions, or leave those whose desktop can be adopted to the next start (``keep_sessions``).

        Takes less than ten seconds. Returns the ``desktop_id`` of each desktop that its provider must not remove.
        """
        self.stopping = True
        for creation in self._creations.values():
            creation.closed = True
        await self._recovery.stop(RETRY_STOP_SECONDS)
        keep = self.settings.keep_sessions
        kept = {one.id: one.desktop.desktop_id for one in self.sessions if keep and one.desktop.outlives_server}
        desktops = frozenset(kept.values()) | (self._recovery.waiting_desktops() if keep else frozenset())
        for watcher in self._lost_watchers.values():
            watcher.cancel()
        ends = (one.suspend() if one.id in kept else self._end(one, "shutdown") for one in self.sessions)
        work = [asyncio.ensure_future(end) for end in ends]
        if work:
            _, late = await asyncio.wait(work, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        await self._tasks.cancel()
        await asyncio.gather(*self._lost_watchers.values(), return_exceptions=True)
        for watch in list(self._watches):
            watch.close()
        return desktops

    # Sessions

    @property
    def sessions(self) -> list[Session]:
        """The live ones, oldest first."""
        return list(self._live.values())

    async def create(self, name: str | None = None, config: dict[str, Any] | None = None) -> Session:
        """Create a session; return it when its desktop is usable.

        Raises :class:`InvalidRequest`, :class:`UnsupportedModel`, :class:`DesktopUnavailable` (also
        :class:`CapacityReached`) or :class:`StoreUnavailable`; then nothing is left behind.
        """
        title, parsed, options = check_creation(name, config, self.settings)
        self._check_capacity()
        if self.store.failure is not None and (failure := await self.store.health()) is not None:
            raise failure
        session_id = str(uuid.uuid4())
        title = title or f"Session {session_id[:8]}"
        creation = Creation(self.context, session_id, title, parsed, options, tell=self._watches.tell)
        self._creations[session_id] = creation
        try:
            session = await creation.run(self.desktops.provider_for)
        except BaseException as error:
            creation.failed(error.describe() if isinstance(error, CambioError) else "It could not be made.")
            await asyncio.shield(self._tasks.own(self._undo(creation), f"undoing the creation of {session_id}"))
            raise
        del self._creations[session_id]
        self.admit(session)
        return session

    def _check_capacity(self) -> None:
        if self.stopping:
            raise DesktopUnavailable("The server is stopping.")
        if len(self._live) + len(self._creations) + len(self._recovery.waiting) >= self.settings.max_desktops:
            raise CapacityReached(
                f"All {self.settings.max_desktops} desktops of this server are in use.",
                hint="End a session, or raise the setting max_desktops.",
            )

    async def _undo(self, creation: Creation) -> None:
        """Until this is done the creation counts as one of the desktops in use."""
        try:
            await creation.undo()
        finally:
            del self._creations[creation.id]

    def _desktops_in_use(self) -> frozenset[str]:
        live = frozenset(session.desktop.desktop_id for session in self.sessions)
        return live | self._recovery.waiting_desktops()

    def admit(self, session: Session) -> None:
        """From now on the session is found, watched and ended in time."""
        self._live[session.id] = session
        watching = asyncio.create_task(session.watch_desktop(), name=f"desktop of session {session.id}")
        self._lost_watchers[session.id] = watching
        self._watches.tell(session)

    def get(self, session_id: str) -> Session:
        """Return the live session. Raises :class:`SessionNotFound`, :class:`SessionEnded`, or
        :class:`DesktopUnavailable` while it is not yet known whether its desktop survived a restart."""
        if (session := self._live.get(session_id)) is not None:
            return session
        if session_id in self._ended:
            raise SessionEnded("The session is over.", hint="Start a new one.")
        if session_id in self._recovery.waiting:
            raise DesktopUnavailable("The session's desktop cannot be reached yet.", hint="Start its engine.")
        raise _unknown(session_id)

    async def find(self, session_id: str) -> Session:
        """:meth:`get`, and the store is asked about one that ended long ago."""
        try:
            return self.get(session_id)
        except SessionNotFound:
            row = await self.store.sessions.get(session_id)
            if row is None or row.status == "active":
                raise
            raise SessionEnded("The session is over.", hint="Start a new one.") from None

    def ended(self, session_id: str) -> bool:
        """Return whether the session has ended or is ending."""
        session = self._live.get(session_id)
        return session_id in self._ended if session is None else session.life.over

    def state_of(self, session_id: str) -> str | None:
        """Return the live session's state; ``None`` when it is not live."""
        return self._live[session_id].state if session_id in self._live else None

    async def describe(self, session_id: str) -> dict[str, Any]:
        """The body of ``GET /sessions/{id}``, of a live session or of one that ended."""
        if (session := self._live.get(session_id)) is not None:
            return session.describe()
        row = await self.store.sessions.get(session_id)
        if row is None:
            raise _unknown(session_id)
        return row.describe()

    async def annotate(self, session_id: str, **said: Any) -> None:
        """Set what people say of a session, ended or not: ``pinned`` (kept when the oldest go), ``tags``, ``note``."""
        await self.describe(session_id)  # SessionNotFound
        await self.store.sessions.update(session_id, **said)
        if (session := self._live.get(session_id)) is not None:
            for name, value in said.items():
                setattr(session, name, value)
            self._watches.tell(session)

    async def end(self, session_id: str, reason: str = "request") -> dict[str, Any]:
        """End a session and free its desktop; ``{"ended_at": ...}``.

        Raises :class:`SessionNotFound`, :class:`SessionEnded`, or :class:`StoreUnavailable` when the desktop is
        gone but the end could not be written yet (that is done as soon as the disk takes it).
        """
        if session_id in self._recovery.waiting:
            ending = self._tasks.own(self._recovery.end(session_id, reason), f"end of session {session_id}")
            if (row := await asyncio.shield(ending)) is not None:
                return {"ended_at": timestamp(row.ended_at or self.clock.time())}
        if (session := self._live.get(session_id)) is None:
            if await self.store.sessions.get(session_id) is None:
                raise _unknown(session_id)
            raise SessionEnded("The session is over already.", hint="Start a new one.")
        if not await asyncio.shield(self._tasks.own(self._end(session, reason), f"end of session {session_id}")):
            raise StoreUnavailable("The session's desktop is freed; its end is not on disk yet.")
        assert session.ended_at is not None
        return {"ended_at": timestamp(session.ended_at)}

    def watch(self) -> SessionFeed:
        """Return news of all sessions, the live ones first; also of those whose desktop takes long to make."""
        slow = [one for one in self._creations.values() if one.text]
        return SessionFeed(self._watches, [*self.sessions, *slow])

    # Housekeeping

    def note_end(self, session_id: str) -> None:
        """From now on this id is that of an ended session."""
        if len(self._ended) >= MAX_ENDED:
            self._ended.pop(next(iter(self._ended)))
        self._ended[session_id] = None

    async def _end(self, session: Session, reason: str, status: SessionStatus = "inactive") -> bool:
        try:
            recorded = await session.end(reason, status)
        finally:
            if session.life.over and session.ended_at is not None:
                self._live.pop(session.id, None)
                self.note_end(session.id)
                if session.desktop_left:
                    self.desktops.reap_later(session.desktop_kind)
                self._watches.tell(session)
                watcher = self._lost_watchers.pop(session.id, None)
                if watcher is not None and watcher is not asyncio.current_task():
                    watcher.cancel()
        if recorded:
            await session.journal.aclose()
        else:
            self._tasks.own(session.journal.finish(), f"last events of session {session.id}")
        return recorded

    def _end_later(self, session_id: str, reason: str, status: SessionStatus = "inactive") -> None:
        session = self._live.get(session_id)
        if session is not None and not session.life.over:
            if status == "error":
                logger.warning("session failed: session=%s reason=%s", session_id, reason)
            self._tasks.own(self._end(session, reason, status), f"end of session {session_id}")


def _unknown(session_id: str) -> SessionNotFound:
    return SessionNotFound(f"There is no session {session_id[:60]!r}.")
