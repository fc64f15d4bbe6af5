"""Sessions of an earlier server process: adopt each, end it, or wait until its engine answers.

Each session has a task of its own that tries until the session is adopted or ended. A desktop that does not answer
delays neither another session nor the server's start.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cambio_lab.desktop.base import Desktop
from cambio_lab.errors import CambioError, DesktopUnavailable, InvalidRequest, SessionEnded, StoreUnavailable
from cambio_lab.events import MessageWithdrawn, Status, StatusChanged, TurnFailed, Usage
from cambio_lab.replay.recorded import RECORDING
from cambio_lab.store import SessionRow, SessionStatus

from . import SessionContext, SessionView
from .agent import stored_conversation
from .config import SessionConfig
from .control import OwnedTasks, attempt
from .creation import Desktops
from .journal import Journal, event_row
from .session import Session

logger = logging.getLogger(__name__)
START_SECONDS = 1.0
"""How long the server's start waits for sessions to be adopted; those that take longer are adopted while it serves."""
ADOPT_SECONDS = 15.0
"""For one attempt with one session."""
RELEASE_SECONDS = 5.0
"""For closing what a failed attempt had opened."""
RETRY_SECONDS = 5.0
MAX_ATTEMPTS = 120
"""Ten minutes at least: an engine may need them after the machine was restarted."""


class Gone(Exception):
    """The session's desktop no longer exists; the text says why, for people."""


class Recovery:
    """Sessions that are ``active`` in the store and not in this process; ``waiting`` has their rows by id."""

    def __init__(
        self,
        context: SessionContext,
        desktops: Desktops,
        tasks: OwnedTasks,
        *,
        admit: Callable[[Session], None],
        ended: Callable[[str], None],
    ) -> None:
        """``admit`` is called with each adopted session, ``ended`` with the id of each that could not be adopted."""
        self.waiting: dict[str, SessionRow] = {}
        self._context = context
        self._store = context.store
        self._clock = context.clock
        self._desktops = desktops
        self._tasks = tasks
        self._admit = admit
        self._ended = ended
        self._attempts: dict[str, asyncio.Task[None]] = {}
        """The latest attempt of each session, also when it has ended."""
        self._tried: set[str] = set()
        """Sessions of which an earlier attempt may have left a write in the store's queue."""
        self._ending: set[str] = set()
        """Sessions that a client is ending: they must not be adopted meanwhile."""
        self._stopping = False

    def waiting_desktops(self) -> frozenset[str]:
        return frozenset(row.desktop_id for row in self.waiting.values() if row.desktop_id)

    async def start(self) -> None:
        """Begin to adopt or end every session of the store; returns after :data:`START_SECONDS` at most."""
        rows = await self._store.sessions.live()
        self.waiting = {row.id: row for row in rows}
        for row in rows:
            self._desktops.find(row.desktop_kind)
            self._begin(row.id)
        if self._attempts:
            await asyncio.wait(self._attempts.values(), timeout=START_SECONDS)

    async def stop(self, seconds: float) -> None:
        """Adopt nothing more; wait up to ``seconds`` for the attempts that run."""
        self._stopping = True
        for recovering in self._attempts.values():
            recovering.cancel()
        if self._attempts:
            await asyncio.wait(self._attempts.values(), timeout=seconds)

    async def end(self, session_id: str, reason: str) -> SessionRow | None:
        """End a session that waits for its engine; its desktop is removed when the engine answers again.

        ``None`` when it does not wait any more. Raises :class:`SessionEnded` if another caller is ending it, and
        :class:`StoreUnavailable`: then it goes on waiting.
        """
        if session_id in self._ending:
            raise SessionEnded("The session is over already.", hint="Start a new one.")
        self._ending.add(session_id)
        try:
            if (recovering := self._attempts.get(session_id)) is not None:
                recovering.cancel()
                await asyncio.wait({recovering})
            if session_id not in self.waiting:
                return None
            return await self._end(session_id, reason, "inactive")
        finally:
            self._ending.discard(session_id)
            if session_id in self.waiting and not self._stopping:
                self._begin(session_id)

    def _begin(self, session_id: str) -> None:
        recovering = self._recover(session_id)
        self._attempts[session_id] = self._tasks.own(recovering, f"recovery of session {session_id}")

    async def _recover(self, session_id: str) -> None:
        """Try until the session is adopted or ended."""
        failures, problem = 0, ""
        while session_id in self.waiting:
            try:
                if failures < MAX_ATTEMPTS:
                    await self._adopt_or_end(session_id)
                else:
                    await self._end(session_id, f"Its desktop could not be reached again: {problem}", "error")
            except (StoreUnavailable, DesktopUnavailable, OSError) as error:  # OSError: TimeoutError, engine sockets
                failures += not isinstance(error, StoreUnavailable)
                if (words := str(error) or type(error).__name__) != problem:
                    problem = words
                    logger.warning("session not adopted yet: session=%s error=%s", session_id, problem)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:
                logger.exception("session neither adopted nor ended: session=%s", session_id)
                await asyncio.sleep(RETRY_SECONDS)

    async def _adopt_or_end(self, session_id: str) -> None:
        """Raises what another attempt may not meet: the store, the engine or the desktop does not answer."""
        try:
            async with asyncio.timeout(ADOPT_SECONDS):
                if (row := await self._reread(session_id)) is not None:
                    await self._adopt(row)
                return
        except (StoreUnavailable, DesktopUnavailable, OSError):
            raise
        except Gone as gone:
            reason = str(gone)
        except CambioError as error:
            reason = f"It could not be recovered: {error.message}"
        except Exception:
            logger.exception("session could not be adopted: session=%s", session_id)
            reason = "It could not be recovered."
        await self._end(session_id, reason, "error")

    async def _reread(self, session_id: str) -> SessionRow | None:
        """The row as it is now: an attempt that was cut off may have written after all. ``None``: it is over."""
        if session_id in self._tried:
            await self._store.write()  # behind whatever still waits to be written
        self._tried.add(session_id)
        row = await self._store.sessions.get(session_id)
        if row is None or row.status != "active":
            self._forget(session_id)
            self._ended(session_id)
            return None
        self.waiting[session_id] = row
        return row

    async def _adopt(self, row: SessionRow) -> None:
        desktop, config = await self._desktop(row)
        session: Session | None = None
        try:
            history = await stored_conversation(self._store, row.id)
            session = await Session.make(row, config, desktop, self._context, history)
            await self._close_turn(session, row)
            if self._stopping or row.id in self._ending:
                raise DesktopUnavailable("The server is stopping, or the session is being ended.")
        except BaseException:
            await _release(desktop, session)
            raise
        self._forget(row.id)
        self._admit(session)
        logger.info("session adopted: session=%s", row.id)

    async def _desktop(self, row: SessionRow) -> tuple[Desktop, SessionConfig]:
        """What an earlier server left of the session. Raises :class:`Gone` and what providers raise."""
        if row.desktop_kind == RECORDING:
            raise Gone("It was replayed from a recording, which a restart of the server ends")
        provider = self._desktops.provider_for(row.desktop_kind)
        try:
            config = SessionConfig.parse(row.config)
        except InvalidRequest:
            logger.exception("stored configuration not valid: session=%s", row.id)
            raise Gone("Its configuration is not valid any more") from None
        desktop = await provider.adopt(row.desktop_id, row.id) if row.desktop_id else None
        if desktop is None:
            raise Gone("Its desktop did not survive the restart of the server")
        return desktop, config

    async def _close_turn(self, session: Session, row: SessionRow) -> None:
        """Give the turn that the crash cut off its one end; the conversation goes on from there."""
        restarted = StatusChanged("idle", "The server restarted; reconnected", {"event": "restarted"})
        if row.turn_message_id is None:
            await session.journal.post(session.stamped(restarted))
            return
        details = "The server was restarted while it ran. Send a message to go on."
        failed = TurnFailed("The turn was interrupted.", details, 0.0, Usage())
        about = {"event": "interrupted", "message_id": row.turn_message_id}
        idle = StatusChanged("idle", "Waiting for a message", about)
        closing = session.store.sessions.updating(row.id, turn_message_id=None)
        operations = [session.store.steps.interrupting(row.id, session.now()), closing]
        unread = "The server was restarted before the agent read it"
        lost = [MessageWithdrawn(one, unread) for one in await self._queued(row)]
        rows = [session.stamped(event) for event in (*lost, failed, idle)]
        await session.journal.emit(*rows, operations=operations, refusable=True)

    async def _queued(self, row: SessionRow) -> list[str]:
        """Return the ids of the messages that waited for the agent's next request."""
        kinds = ("MessageQueued", "MessageDelivered", "MessageWithdrawn", "UserMessage")
        waiting: dict[str, bool] = {}
        for event in await self._store.events.records(row.id, kinds=kinds):
            waiting[json.loads(event.record or "{}")["message_id"]] = event.kind == "MessageQueued"
        return [message_id for message_id, waits in waiting.items() if waits]

    async def _end(self, session_id: str, reason: str, status: SessionStatus) -> SessionRow | None:
        """End a session; its history and record stay, its desktop is removed. ``None``: it was over.

        Raises :class:`StoreUnavailable`: then it waits as before.
        """
        self._tried.add(session_id)
        if (row := await self._reread(session_id)) is None:
            return None
        now = max(self._clock.time(), row.created_at)
        changes: dict[str, Any] = {"status": status, "ended_at": now, "end_reason": reason, "turn_message_id": None}
        operations = [self._store.steps.interrupting(row.id, now), self._store.sessions.updating(row.id, **changes)]
        state: Status = "error" if status == "error" else "ended"
        event = StatusChanged(state, reason, {"event": "ended", "reason": reason, "session_status": status})
        journal = Journal(row, self._store)
        try:
            view = SessionView(row.id, now, state, row.steps, Usage(**row.usage))
            shown = event_row(event, view, self._context.encode(event, view))
            await journal.emit(shown, operations=operations, refusable=True)
        except StoreUnavailable:
            raise
        except Exception:  # a row that makes no sense: no reader can be told, but the session ends
            logger.exception("end of session not published: session=%s", row.id)
            await self._store.write(*operations)
        finally:
            await journal.aclose()
        self._forget(session_id)
        self._ended(session_id)
        logger.warning("session ended: session=%s reason=%s", session_id, reason)
        if row.desktop_id:
            self._tasks.own(self._desktops.remove(row, ADOPT_SECONDS), f"desktop of session {session_id}")
        return replace(row, **changes)

    def _forget(self, session_id: str) -> None:
        """The session waits no more."""
        self.waiting.pop(session_id, None)
        self._tried.discard(session_id)


async def _release(desktop: Desktop, session: Session | None) -> None:
    """Close what an attempt opened; the desktop itself goes on, for the next attempt."""
    if session is not None:
        await attempt("closing a journal", session.journal.aclose(), session.id, RELEASE_SECONDS)
        await attempt("closing an agent", session.agent.aclose(), session.id, RELEASE_SECONDS)
    await attempt("releasing a desktop", desktop.release(), desktop.desktop_id, RELEASE_SECONDS)
