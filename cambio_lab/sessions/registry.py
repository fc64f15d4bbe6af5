"""All sessions of a server: create, find, end; start and stop."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from cambio_lab.agent.options import AgentOptions
from cambio_lab.desktop.base import DesktopProvider
from cambio_lab.errors import (
    CambioError,
    CapacityReached,
    DesktopLost,
    DesktopUnavailable,
    SessionEnded,
    SessionNotFound,
    StoreUnavailable,
)
from cambio_lab.settings import Settings
from cambio_lab.store import Listed, Page, SessionQuery, SessionStatus, Store

from .adoption import Adoption
from .agents import AgentFactory, default_factory
from .config import SessionConfig, check_name
from .creation import create
from .ending import end_session, suspend_session
from .expiry import LOOK_SECONDS, Expiry
from .session import Session, Surroundings
from .starting import Starting
from .views import Clock, Encode, SystemClock, describe_row, iso
from .watch import Described, Watch

logger = logging.getLogger(__name__)
T = TypeVar("T")
STOP_SECONDS = 8.5
RETRY_STOP_SECONDS = 0.5
"""The two together, and what is cancelled then, take less than ten seconds."""
REMEMBERED = 10_000
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
        build_agent: AgentFactory | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``provider_for`` maps ``auto``, ``docker`` and ``local`` to a provider (the same one each time)."""
        self.settings = settings
        self.store = store
        self._provider_for = provider_for
        self.providers: set[DesktopProvider] = set()
        """Those that were asked for."""
        self.encode = encode
        self.clock = clock or SystemClock()
        self.around = Surroundings(
            settings,
            store,
            encode,
            self.clock,
            build_agent or default_factory(settings, store),
            changed=self._changed,
            broken=self._broken,
        )
        self._live: dict[str, Session] = {}
        self._ended: dict[str, None] = {}
        self._starting: dict[str, Starting] = {}
        self._watches: set[Watch] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lost_watchers: dict[str, asyncio.Task[None]] = {}
        self._expiry = Expiry(settings)
        self._adoption = Adoption(self)
        self._retrying: asyncio.Task[None] | None = None
        self.stopping = False
        """Nothing new is begun."""
        self.revision = 0
        """Grows with every change that a listing shows and that no write to the store tells."""

    # Life of the registry

    async def start(self) -> None:
        """Take up what an earlier server left, remove its orphans, fill the pool in the background."""
        ended = await self.store.sessions.page(SessionQuery(limit=REMEMBERED))
        self._ended = {row.id: None for row in reversed(ended.rows) if row.status != "active"}
        await self._adoption.begin()
        self.own(self._housekeeping(), "housekeeping of sessions")

    async def stop(self) -> frozenset[str]:
        """End all sessions, or leave them to the next start (setting ``keep_sessions``); within ten seconds.

        Returns the ``desktop_id`` of each desktop that must stay when its provider is stopped.
        """
        self.stopping = True
        if self._retrying is not None:  # what it takes up now would be left out below
            self._retrying.cancel()
            await asyncio.wait({self._retrying}, timeout=RETRY_STOP_SECONDS)
        sessions = list(self._live.values())
        keep = self.settings.keep_sessions
        kept = frozenset(session.desktop.desktop_id for session in sessions) if keep else frozenset[str]()
        if keep:
            kept |= self._adoption.waiting_desktops
        for watcher in self._lost_watchers.values():
            watcher.cancel()
        work = [asyncio.ensure_future(suspend_session(one) if keep else self._end(one, "shutdown")) for one in sessions]
        if work:
            _, late = await asyncio.wait(work, timeout=STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._lost_watchers.values(), return_exceptions=True)
        for watch in list(self._watches):
            watch.close()
        return kept

    # Sessions

    @property
    def sessions(self) -> list[Session]:
        """The live ones, oldest first."""
        return list(self._live.values())

    def provider_for(self, kind: str) -> DesktopProvider:
        """The provider of ``auto``, ``docker`` or ``local``, the same one each time."""
        provider = self._provider_for(kind)
        self.providers.add(provider)
        return provider

    async def create(self, name: str | None = None, config: dict[str, Any] | None = None) -> Session:
        """A new session; returns when its desktop is usable.

        Raises :class:`InvalidRequest`, :class:`UnsupportedModel`, :class:`DesktopUnavailable` (also
        :class:`CapacityReached`) or :class:`StoreUnavailable`; then nothing is left behind.
        """
        parsed = SessionConfig.parse(config)
        title = check_name(name, parsed.mask())
        options = AgentOptions.from_settings(self.settings, parsed.given())
        if self.stopping:
            raise DesktopUnavailable("The server is stopping.")
        if len(self._live) + len(self._starting) + len(self._adoption.waiting) >= self.settings.max_desktops:
            raise CapacityReached(
                f"All {self.settings.max_desktops} desktops of this server are in use.",
                hint="End a session, or raise the setting max_desktops.",
            )
        if self.store.failure is not None and (failure := await self.store.health()) is not None:
            raise failure
        session_id = str(uuid.uuid4())
        name = title or f"Session {session_id[:8]}"
        starting = Starting(session_id, name, options.model, self.clock.time(), tell=self._tell)
        self._starting[session_id] = starting
        try:
            session = await create(self, starting, parsed, options)
        except BaseException as error:
            starting.failed(error.describe() if isinstance(error, CambioError) else "It could not be made.")
            raise
        finally:
            del self._starting[session_id]
        self.admit(session)
        return session

    def admit(self, session: Session) -> None:
        """From now on the session is found, watched and ended in time."""
        self._live[session.id] = session
        self._lost_watchers[session.id] = asyncio.create_task(
            self._watch_desktop(session), name=f"desktop of session {session.id}"
        )
        self._changed(session)

    def get(self, session_id: str) -> Session:
        """The live session. Raises :class:`SessionNotFound`, :class:`SessionEnded`, or :class:`DesktopUnavailable`
        while it is not yet known whether its desktop survived a restart."""
        session = self._live.get(session_id)
        if session is not None:
            return session
        if session_id in self._ended:
            raise SessionEnded("The session is over.", hint="Start a new one.")
        if session_id in self._adoption.waiting:
            raise DesktopUnavailable("The session's desktop cannot be reached yet.", hint="Start its engine.")
        raise SessionNotFound(f"There is no session {session_id[:60]!r}.")

    async def find(self, session_id: str) -> Session:
        """:meth:`get`, and the store is asked about one that ended long ago."""
        try:
            return self.get(session_id)
        except SessionNotFound:
            row = await self.store.sessions.get(session_id)
            if row is None or row.status == "active":
                raise
            raise SessionEnded("The session is over.", hint="Start a new one.") from None

    def state_of(self, session_id: str) -> str | None:
        """The live session's state; ``None`` when it is not live."""
        session = self._live.get(session_id)
        return None if session is None else session.state

    async def describe(self, session_id: str) -> dict[str, Any]:
        """The body of ``GET /sessions/{id}``, of a live session or of one that ended."""
        if (session := self._live.get(session_id)) is not None:
            return session.describe()
        row = await self.store.sessions.get(session_id)
        if row is None:
            raise SessionNotFound(f"There is no session {session_id[:60]!r}.")
        return describe_row(row)

    async def listing(self, query: SessionQuery) -> Page[Listed]:
        """A page as JSON; what changes without a write (the live ones' ``state``) is not in it."""
        return await self.store.sessions.listing(query)

    async def end(self, session_id: str, reason: str = "request") -> dict[str, Any]:
        """End a session and free its desktop; ``{"ended_at": ...}``.

        Raises :class:`SessionNotFound`, :class:`SessionEnded`, or :class:`StoreUnavailable` when the desktop is
        gone but the end could not be written yet (that is done as soon as the disk takes it).
        """
        if session_id in self._adoption.waiting:
            giving_up = self.own(self._adoption.give_up(session_id, reason), f"end of session {session_id}")
            if (given_up := await asyncio.shield(giving_up)) is not None:
                return {"ended_at": iso(given_up.ended_at or self.clock.time())}
        if (session := self._live.get(session_id)) is None:
            if await self.store.sessions.get(session_id) is None:
                raise SessionNotFound(f"There is no session {session_id[:60]!r}.")
            raise SessionEnded("The session is over already.", hint="Start a new one.")
        if not await asyncio.shield(self.own(self._end(session, reason), f"end of session {session_id}")):
            raise StoreUnavailable("The session's desktop is freed; its end is not on disk yet.")
        assert session.ended_at is not None
        return {"ended_at": iso(session.ended_at)}

    def watch(self) -> Watch:
        """News of all sessions, the live ones as they are first; also of those whose desktop takes long to make."""
        starting = [one for one in self._starting.values() if one.text]
        return Watch(self._watches, [*self.sessions, *starting])

    # Housekeeping

    def remember_end(self, session_id: str) -> None:
        """From now on this id is that of an ended session."""
        if len(self._ended) >= REMEMBERED:
            self._ended.pop(next(iter(self._ended)))
        self._ended[session_id] = None

    def own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """A task of the registry's: its failure is logged, the stop of the registry ends it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def _end(self, session: Session, reason: str, status: SessionStatus = "inactive") -> bool:
        try:
            recorded = await end_session(session, reason, status=status)
        finally:
            if session.life.over and session.ended_at is not None:
                self._live.pop(session.id, None)
                self.remember_end(session.id)
                self._expiry.forget(session)
                if session.desktop_left:
                    self._adoption.reap_later(session.desktop_kind)
                self._changed(session)
                watcher = self._lost_watchers.pop(session.id, None)
                if watcher is not None and watcher is not asyncio.current_task():
                    watcher.cancel()
        if recorded:
            await session.journal.aclose()
        else:
            self.own(_finish_recording(session), f"last words of session {session.id}")
        return recorded

    async def _watch_desktop(self, session: Session) -> None:
        reason = await session.desktop.lost()
        session.gate.halt(DesktopLost(reason, hint="Start a new session."))  # before the end stops the turn
        self._broken(session, reason)

    def _broken(self, session: Session, reason: str) -> None:
        """The session cannot go on: end it as ``error``, unless it is ending already."""
        if not session.life.over:
            logger.warning("session %s cannot go on: %s", session.id, reason)
            self.own(self._end_if_live(session, reason, "error"), f"end of session {session.id}")

    async def _end_if_live(self, session: Session, reason: str, status: SessionStatus = "inactive") -> None:
        try:
            await self._end(session, reason, status)
        except SessionEnded:
            logger.debug("session %s was ended by someone else meanwhile", session.id)

    async def _housekeeping(self) -> None:
        """Goes on whatever happens: one session's trouble, or an engine's, is not the others'."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                self._retry()
            except Exception:
                logger.exception("sessions that wait could not be looked after")
            for session in self.sessions:
                try:
                    await self._look(session)
                except Exception:
                    logger.exception("session %s could not be looked after", session.id)

    def _retry(self) -> None:
        """In a task of its own: an engine that hangs holds up nobody else."""
        if self._adoption.due and (self._retrying is None or self._retrying.done()):
            self._retrying = self.own(self._adoption.retry(), "sessions that wait for their engine")

    async def _look(self, session: Session) -> None:
        if not session.life.over and (reason := await self._expiry.look(session)) is not None:
            self.own(self._end_if_live(session, reason), f"end of session {session.id}")

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, SessionEnded | StoreUnavailable):
                logger.info("%s: %s", task.get_name(), error)
            else:
                logger.error("%s failed", task.get_name(), exc_info=error)

    def _changed(self, session: Session) -> None:
        self.revision += 1
        self._tell(session)

    def _tell(self, session: Described) -> None:
        for watch in self._watches:
            watch.tell(session)


async def _finish_recording(session: Session) -> None:
    """The store took nothing when the session ended: go on trying until it does."""
    try:
        while not await session.journal.drain(60.0):
            logger.warning("session %s: its end is not on disk yet", session.id)
    finally:
        await session.journal.aclose()
