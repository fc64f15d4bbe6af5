"""What to do with the sessions of an earlier server: take them up, end them, or wait for their engine."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from cambio_lab.desktop.base import DesktopProvider
from cambio_lab.errors import CambioError, DesktopUnavailable, InvalidRequest, StoreUnavailable
from cambio_lab.events import Status, StatusChanged, TurnFailed, Usage
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
AT_ONCE = 4
RETRY_SECONDS = 5.0
MOST_TRIES = 120
"""Ten minutes at least: an engine may be slow to come back after the machine was restarted."""


class Adoption:
    """Sessions that are ``active`` in the store and not in this process. ``waiting``: their engine does not answer."""

    def __init__(self, registry: Registry) -> None:
        self.waiting: dict[str, SessionRow] = {}
        self._registry = registry
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._tried_at = 0.0
        self._tries: dict[str, int] = {}
        self._unreaped: set[DesktopProvider] = set()

    @property
    def waiting_desktops(self) -> frozenset[str]:
        return frozenset(row.desktop_id for row in self.waiting.values() if row.desktop_id)

    async def begin(self) -> None:
        """Adopt or end every session of the store, then remove desktops that belong to none, then fill the pool."""
        rows = await self._registry.store.sessions.live()
        for kind in {self._registry.settings.desktop, *(row.desktop_kind for row in rows)}:
            self._registry.provider_for(kind)
        self.waiting = {row.id: row for row in rows}
        await asyncio.gather(*(self._try(row) for row in rows))
        for provider in list(self._registry.providers):
            await self._reap(provider)
            await provider.start()

    async def retry(self) -> None:
        """Try again, now and then: sessions that wait, and desktops that could not be removed or made."""
        now = self._registry.clock.monotonic()
        due = self._unreaped | {provider for provider in self._registry.providers if provider.unclean}
        if (self.waiting or due) and now - self._tried_at >= RETRY_SECONDS:
            self._tried_at = now
            await asyncio.gather(*(self._try(row) for row in list(self.waiting.values())))
            for provider in due:
                await self._reap(provider)

    def reap_later(self, kind: str) -> None:
        """A desktop of this kind could not be removed: look for it until that succeeds."""
        self._unreaped.add(self._registry.provider_for(kind))

    async def give_up(self, session_id: str, reason: str) -> SessionRow:
        """End a session whose engine does not answer; its desktop is removed when the engine is back."""
        return await self._bury(self.waiting[session_id], reason, "inactive")

    async def _try(self, row: SessionRow) -> None:
        async with self._at_once:
            if row.id not in self.waiting:
                return
            try:
                async with asyncio.timeout(ADOPT_SECONDS):
                    session = await self._adopt(row)
            except (DesktopUnavailable, StoreUnavailable, OSError) as error:  # OSError: TimeoutError, engine sockets
                logger.warning("session %s waits for its desktop: %s", row.id, error)
                self._tries[row.id] = self._tries.get(row.id, 0) + 1
                if self._tries[row.id] >= MOST_TRIES:
                    await self._bury(row, f"Its desktop could not be reached again: {error}", "error")
                return
            except CambioError as error:
                await self._bury(row, f"It could not be taken up again: {error.message}", "error")
                return
            except Exception:
                logger.exception("session %s could not be adopted", row.id)
                await self._bury(row, "It could not be taken up again.", "error")
                return
            if session is None:
                await self._bury(row, "Its desktop did not survive the restart of the server", "error")

    async def _adopt(self, row: SessionRow) -> Session | None:
        registry = self._registry
        provider = registry.provider_for(row.desktop_kind)
        try:
            config = SessionConfig.parse(row.config)
        except InvalidRequest:
            logger.exception("the configuration of session %s is not valid any more", row.id)
            return None
        desktop = await provider.adopt(row.desktop_id, row.id) if row.desktop_id else None
        if desktop is None:
            return None
        history = await stored_conversation(registry.store, row.id)
        lived = max(0.0, registry.clock.time() - row.created_at)
        began = registry.clock.monotonic() - lived
        session = await assemble(registry.around, row, config, desktop, began=began, history=history)
        await self._close_turn(session, row)
        self.waiting.pop(row.id, None)
        registry.admit(session)
        logger.info("session %s goes on", row.id)
        return session

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
        await session.journal.emit(session.moment(failed), session.moment(idle), operations=operations)

    async def _bury(self, row: SessionRow, reason: str, status: SessionStatus) -> SessionRow:
        """End a session that has no desktop any more; its history and record stay."""
        registry = self._registry
        now = max(registry.clock.time(), row.created_at)
        state: Status = "error" if status == "error" else "ended"
        event = StatusChanged(state, reason, {"event": "ended", "reason": reason, "session_status": status})
        view = SessionView(row.id, now, state, row.steps, Usage(**row.usage))
        moment = Moment(event, now, registry.encode(event, view))
        journal = Journal(row.id, registry.store, sequence=row.last_sequence, stream_sequence=row.last_stream_sequence)
        operations = [
            registry.store.steps.interrupting(row.id, now),
            registry.store.sessions.updating(
                row.id, status=status, ended_at=now, end_reason=reason, turn_message_id=None
            ),
        ]
        await journal.emit(moment, operations=operations)
        await journal.aclose()
        self.waiting.pop(row.id, None)
        registry.remember_end(row.id)
        logger.warning("session %s is over: %s", row.id, reason)
        return replace(row, status=status, ended_at=now, end_reason=reason)

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
