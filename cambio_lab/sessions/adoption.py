"""What to do with the sessions of an earlier server: take them up, end them, or wait for their engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from cambio_lab.desktop.base import Desktop, DesktopProvider
from cambio_lab.errors import (
    CambioError,
    DesktopUnavailable,
    InvalidRequest,
    SessionEnded,
    StoreUnavailable,
)
from cambio_lab.events import Status, StatusChanged, TurnFailed, Usage
from cambio_lab.replay.replay_desktop import ReplayProvider
from cambio_lab.store import SessionRow, SessionStatus

from .config import SessionConfig
from .creation import assemble
from .journal import Journal, Moment
from .recovery import stored_conversation
from .session import Session
from .views import SessionView

if TYPE_CHECKING:
    from .registry import Registry

logger = logging.getLogger(__name__)
ADOPT_SECONDS = 15.0
LET_GO_SECONDS = 5.0
"""For what was half taken up to be let go of."""
AT_ONCE = 4
RETRY_SECONDS = 5.0
MOST_TRIES = 120
"""Ten minutes at least: an engine may be slow to come back after the machine was restarted."""


class Gone(Exception):
    """The session has no desktop any more; the text says why, for people."""


class Adoption:
    """Sessions that are ``active`` in the store and not in this process. ``waiting``: their engine does not answer."""

    def __init__(self, registry: Registry) -> None:
        self.waiting: dict[str, SessionRow] = {}
        self._registry = registry
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tried_at = float("-inf")
        self._tried: set[str] = set()
        """An attempt that was cut off may have left a write in the store's queue."""
        self._tries: dict[str, int] = {}
        self._attempts: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[str] = set()
        """They are being ended: nobody takes them up meanwhile."""
        self._unreaped: set[DesktopProvider] = set()

    @property
    def waiting_desktops(self) -> frozenset[str]:
        return frozenset(row.desktop_id for row in self.waiting.values() if row.desktop_id)

    @property
    def due(self) -> bool:
        """Whether there is something for :meth:`retry` to do now."""
        work = self.waiting or self._unclean()
        return bool(work) and self._registry.clock.monotonic() - self._tried_at >= RETRY_SECONDS

    async def begin(self) -> None:
        """Adopt or end every session of the store, then remove desktops that belong to none, then fill the pool."""
        rows = await self._registry.store.sessions.live()
        self._registry.provider_for(self._registry.settings.desktop)
        for row in rows:
            self._provider(row)
        self.waiting = {row.id: row for row in rows}
        await self._try_all(self.waiting)
        for provider in list(self._registry.providers):
            await self._reap(provider)
            await provider.start()

    async def retry(self) -> None:
        """Try again, now and then: sessions that wait, and desktops that could not be removed or made."""
        if self.due:
            self._tried_at = self._registry.clock.monotonic()
            await self._try_all(self.waiting)
            for provider in self._unclean():
                await self._reap(provider)

    def reap_later(self, kind: str) -> None:
        """A desktop of this kind could not be removed: look for it until that succeeds."""
        if kind != ReplayProvider.name:  # of a recording nothing is left
            self._unreaped.add(self._registry.provider_for(kind))

    async def give_up(self, session_id: str, reason: str) -> SessionRow | None:
        """End a session whose engine does not answer; its desktop is removed when the engine is back.

        ``None`` when it does not wait any more. Raises :class:`SessionEnded` if someone else ends it already, and
        :class:`StoreUnavailable`: then it goes on waiting.
        """
        if session_id in self._leaving:
            raise SessionEnded("The session is over already.", hint="Start a new one.")
        self._leaving.add(session_id)
        try:
            if (attempt := self._attempts.get(session_id)) is not None:
                attempt.cancel()
                await asyncio.wait({attempt})
            if session_id not in self.waiting:
                return None
            return await self._bury(session_id, reason, "inactive")
        finally:
            self._leaving.discard(session_id)

    def _unclean(self) -> set[DesktopProvider]:
        return self._unreaped | {provider for provider in self._registry.providers if provider.unclean}

    def _provider(self, row: SessionRow) -> DesktopProvider | None:
        """Where its desktop came from; ``None`` for a kind that this server does not have."""
        try:
            return self._registry.provider_for(row.desktop_kind)
        except (CambioError, OSError) as error:
            logger.warning("session %s: %s", row.id, error)
            return None

    async def _try_all(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            task = asyncio.create_task(self._try(session_id), name=f"adoption of session {session_id}")
            self._attempts[session_id] = task
        attempts = dict(self._attempts)
        try:  # cancelling one of them is the end of that one; cancelling this is the end of all
            await asyncio.gather(*attempts.values(), return_exceptions=True)
        finally:
            self._attempts.clear()

    async def _try(self, session_id: str) -> None:
        """One attempt. What goes wrong with a session is its own matter: nothing is raised."""
        async with self._at_once:
            if session_id not in self.waiting or session_id in self._leaving:
                return
            try:
                await self._take_up(session_id)
            except StoreUnavailable as error:
                logger.warning("session %s waits for the store: %s", session_id, error)
            except Exception:
                logger.exception("session %s could neither be adopted nor ended", session_id)

    async def _take_up(self, session_id: str) -> None:
        """Adopt or end a session, or leave it to the next attempt. Raises :class:`StoreUnavailable`."""
        try:
            async with asyncio.timeout(ADOPT_SECONDS):
                if (row := await self._reread(session_id)) is not None:
                    await self._adopt(row)
        except Gone as gone:
            await self._bury(session_id, str(gone), "error")
        except StoreUnavailable:
            raise
        except (DesktopUnavailable, OSError) as error:  # OSError: TimeoutError, engine sockets
            logger.warning("session %s waits for its desktop: %s", session_id, error)
            self._tries[session_id] = self._tries.get(session_id, 0) + 1
            if self._tries[session_id] >= MOST_TRIES:
                await self._bury(session_id, f"Its desktop could not be reached again: {error}", "error")
        except CambioError as error:
            await self._bury(session_id, f"It could not be taken up again: {error.message}", "error")
        except Exception:
            logger.exception("session %s could not be adopted", session_id)
            await self._bury(session_id, "It could not be taken up again.", "error")

    async def _reread(self, session_id: str) -> SessionRow | None:
        """The row as it is now: an attempt that was cut off may have written after all. ``None``: it is over."""
        store = self._registry.store
        if session_id in self._tried:
            await store.write()  # behind whatever still waits to be written
        self._tried.add(session_id)
        row = await store.sessions.get(session_id)
        if row is None or row.status != "active":
            self._forget(session_id)
            self._registry.remember_end(session_id)
            return None
        self.waiting[session_id] = row
        return row

    async def _adopt(self, row: SessionRow) -> None:
        registry = self._registry
        desktop, config = await self._desktop(row)
        session: Session | None = None
        try:
            history = await stored_conversation(registry.store, row.id)
            lived = max(0.0, registry.clock.time() - row.created_at)
            began = registry.clock.monotonic() - lived
            session = await assemble(registry.around, row, config, desktop, began=began, history=history)
            await self._close_turn(session, row)
            if registry.stopping or row.id in self._leaving:
                raise DesktopUnavailable("The server is stopping, or the session is being ended.")
        except BaseException:
            await _let_go(row.id, desktop, session)
            raise
        self._forget(row.id)
        registry.admit(session)
        logger.info("session %s goes on", row.id)

    async def _desktop(self, row: SessionRow) -> tuple[Desktop, SessionConfig]:
        """What an earlier server left of the session. Raises :class:`Gone` and what providers raise."""
        if row.desktop_kind == ReplayProvider.name:
            raise Gone("It was replayed from a recording, which a restart of the server ends")
        provider = self._registry.provider_for(row.desktop_kind)
        try:
            config = SessionConfig.parse(row.config)
        except InvalidRequest:
            logger.exception("the configuration of session %s is not valid any more", row.id)
            raise Gone("Its configuration is not valid any more") from None
        desktop = await provider.adopt(row.desktop_id, row.id) if row.desktop_id else None
        if desktop is None:
            raise Gone("Its desktop did not survive the restart of the server")
        return desktop, config

    async def _close_turn(self, session: Session, row: SessionRow) -> None:
        """The turn that the crash cut off gets its one end; the conversation goes on from there."""
        if row.turn_message_id is None:
            return
        failed = TurnFailed(
            "The turn was interrupted.", "The server was restarted while it ran. Send a message to go on.", 0.0, Usage()
        )
        idle = StatusChanged(
            "idle", "Waiting for a message", {"event": "interrupted", "message_id": row.turn_message_id}
        )
        operations = [
            session.store.steps.interrupting(row.id, session.now()),
            session.store.sessions.updating(row.id, turn_message_id=None),
        ]
        moments = (session.moment(failed), session.moment(idle))
        await session.journal.emit(*moments, operations=operations, refusable=True)

    async def _bury(self, session_id: str, reason: str, status: SessionStatus) -> SessionRow | None:
        """End a session; its history and record stay, its desktop goes. ``None``: it was over.

        Raises :class:`StoreUnavailable`: then it waits as before.
        """
        self._tried.add(session_id)
        if (row := await self._reread(session_id)) is None:
            return None
        ended = replace(
            row,
            status=status,
            ended_at=max(self._registry.clock.time(), row.created_at),
            end_reason=reason,
            turn_message_id=None,
        )
        await self._write_end(ended)
        self._forget(session_id)
        self._registry.remember_end(session_id)
        logger.warning("session %s is over: %s", session_id, reason)
        if (provider := self._provider(row)) is not None and row.desktop_id:
            self._registry.own(self._remove(provider, row), f"desktop of session {session_id}")
        return ended

    async def _write_end(self, row: SessionRow) -> None:
        registry, now = self._registry, row.ended_at or row.created_at
        changes = {"status": row.status, "ended_at": now, "end_reason": row.end_reason, "turn_message_id": None}
        operations = [
            registry.store.steps.interrupting(row.id, now),
            registry.store.sessions.updating(row.id, **changes),
        ]
        state: Status = "error" if row.status == "error" else "ended"
        words = row.end_reason or ""
        event = StatusChanged(state, words, {"event": "ended", "reason": words, "session_status": row.status})
        journal = Journal(row.id, registry.store, sequence=row.last_sequence, stream_sequence=row.last_stream_sequence)
        try:
            view = SessionView(row.id, now, state, row.steps, Usage(**row.usage))
            moment = Moment(event, now, registry.encode(event, view))
            await journal.emit(moment, operations=operations, refusable=True)
        except StoreUnavailable:
            raise
        except Exception:  # a row that makes no sense: nobody can be told, but it ends
            logger.exception("the end of session %s could not be told", row.id)
            await registry.store.write(*operations)
        finally:
            await journal.aclose()

    def _forget(self, session_id: str) -> None:
        """It waits no more."""
        self.waiting.pop(session_id, None)
        self._tried.discard(session_id)
        self._tries.pop(session_id, None)

    async def _remove(self, provider: DesktopProvider, row: SessionRow) -> None:
        """The desktop of a session that was ended while it waited: at once if it answers, else some day."""
        try:
            async with asyncio.timeout(ADOPT_SECONDS):
                desktop = await provider.adopt(row.desktop_id or "", row.id)
                if desktop is not None:
                    await desktop.close()
        except (CambioError, OSError) as error:
            logger.warning("the desktop of session %s could not be removed yet: %s", row.id, error)
        self._unreaped.add(provider)

    async def _reap(self, provider: DesktopProvider) -> None:
        registry = self._registry
        keep = frozenset(session.desktop.desktop_id for session in registry.sessions) | self.waiting_desktops
        try:
            for removed in await provider.reap(keep):
                logger.warning("removed the orphaned desktop %s", removed)
            self._unreaped.discard(provider)
        except CambioError as error:
            self._unreaped.add(provider)
            logger.warning("orphaned desktops could not be looked for: %s", error.describe())
        except Exception:
            self._unreaped.add(provider)
            logger.exception("orphaned desktops could not be looked for")


async def _let_go(session_id: str, desktop: Desktop, session: Session | None) -> None:
    """Close what an attempt made; the desktop itself goes on, for the next one."""
    release = getattr(desktop, "release", None)  # only a desktop that can outlive its server has it
    parts = [] if release is None else [("desktop", release)]
    if session is not None:
        parts = [("journal", session.journal.aclose), ("agent", session.agent.aclose), *parts]
    for name, close in parts:
        try:
            async with asyncio.timeout(LET_GO_SECONDS):
                await close()
        except Exception:
            logger.exception("session %s: its %s could not be let go of", session_id, name)
