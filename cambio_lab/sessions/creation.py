"""Where sessions and their desktops come from: creations, and the providers that desktops are taken from."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cambio_lab.agent.gate import QueuedMessage
from cambio_lab.agent.options import AgentOptions
from cambio_lab.agent.tools import NOTE
from cambio_lab.desktop.base import Desktop
from cambio_lab.desktop.provider import DesktopProvider, Progress
from cambio_lab.errors import CambioError, DesktopUnavailable
from cambio_lab.events import Status, timestamp
from cambio_lab.replay.recorded import RECORDING, ReplayDesktop
from cambio_lab.replay.runs import fork_point, to_replay
from cambio_lab.store import SessionRow, Store, new_message_id

from . import SessionContext
from .config import SessionConfig
from .control import attempt
from .session import Session

logger = logging.getLogger(__name__)
CONTINUED = (
    "This conversation goes on in a new session, on a fresh desktop: nothing of the earlier desktop is there. "
    "Look at the screen before you act."
)


class Creation:
    """One session that is being created. Clients that watch all sessions hear of it when it takes long."""

    def __init__(
        self,
        context: SessionContext,
        session_id: str,
        name: str,
        config: SessionConfig,
        options: AgentOptions,
        tell: Callable[[Creation], None],
    ) -> None:
        """``tell`` passes on to clients that :meth:`describe` says something new."""
        self.id = session_id
        self.name = name
        self.state: Status = "idle"
        self.text = ""
        """What takes long, for people; empty while nothing does."""
        self.fraction: float | None = None
        """Progress from 0 to 1, where it is known."""
        self.closed = False
        """The server stops: whatever was made is undone."""
        self.created_at = context.clock.time()
        self._context = context
        self._config = config
        self._options = options
        self._tell = tell
        self._desktop: Desktop | None = None
        self._session: Session | None = None

    async def run(self, provider_for: Callable[[str], DesktopProvider]) -> Session:
        """Return the session, stored and with a usable desktop. If this fails, call :meth:`undo`."""
        store, config, settings = self._context.store, self._config, self._context.settings
        recording = await to_replay(config.record, config.record_mode or settings.record or "once")
        desktop: Desktop
        if recording is not None:
            kind, desktop = RECORDING, ReplayDesktop(recording, mask=config.mask())
        else:
            provider = provider_for(config.desktop or settings.desktop)
            wanted = replace(config.desktop_options(settings), progress=self.note)
            kind, desktop = provider.name, await provider.acquire(self.id, wanted)
        self._desktop = desktop
        row = SessionRow(
            id=self.id,
            name=self.name,
            status="active",
            created_at=self._context.clock.time(),
            config=config.given(),
            model=self._options.model,
            desktop_kind=kind,
            desktop_id=desktop.desktop_id,
            container_id=desktop.container_id,
            vnc_port=desktop.vnc_port,
        )
        history = await _fork(store, config, desktop)
        session = await Session.make(row, config, desktop, self._context, history)
        self._session = session
        if history and config.fork is not None and config.fork.step is None:
            session.gate.note = QueuedMessage(new_message_id(), NOTE + CONTINUED, note=True)
        self._check_open()
        messages = [await store.transcript.appending(row.id, message) for message in history]
        await store.write(store.sessions.inserting(row), *messages)
        self._check_open()
        return session

    async def undo(self) -> None:
        """Release what was made. A row that was written, or that is about to be after a cancellation, is ended."""
        if self._session is not None:
            reason = "shutdown" if self.closed else "It could not be made"
            now = self._context.clock.time()
            change = self._context.store.sessions.update(self.id, status="inactive", ended_at=now, end_reason=reason)
            await attempt("ending a session that could not be made", change, self.id)
            await attempt("closing the agent", self._session.agent.aclose(), self.id)
        if self._desktop is not None:
            await attempt("removing the desktop", self._desktop.close(), self.id)

    def _check_open(self) -> None:
        if self.closed:
            raise DesktopUnavailable("The server is stopping.")

    # For clients that watch all sessions

    def note(self, progress: Progress) -> None:
        """Say how far a slow step is. An image that is there already is not worth a word."""
        if self.text or progress.fraction != 1.0:
            self.text, self.fraction = progress.text, progress.fraction
            self._tell(self)

    def failed(self, words: str) -> None:
        """Say that there will be no session, to clients that were told that there might be one."""
        if self.text:
            self.state, self.text, self.fraction = "error", words, None
            self._tell(self)

    def describe(self) -> dict[str, Any]:
        """Return the part of :meth:`Session.describe` that is known; ``progress`` has ``text`` and ``fraction``."""
        return {
            "id": self.id,
            "name": self.name,
            "status": "error" if self.state == "error" else "active",
            "state": self.state,
            "created_at": timestamp(self.created_at),
            "model": self._options.model,
            "steps": 0,
            "control": None,
            "progress": {"text": self.text, "fraction": self.fraction},
        }


async def _fork(store: Store, config: SessionConfig, desktop: Desktop) -> list[dict[str, Any]]:
    """Bring the desktop to the point of a run that this session continues; return the conversation up to there."""
    if config.fork is None:
        return []
    point = await fork_point(store, config.fork.run, config.fork.step)
    if not desktop.recorded and config.fork.step is not None:
        await point.bring(desktop)
    return point.history


class Desktops:
    """Finds providers by kind and removes desktops that belong to no session."""

    def __init__(self, provider_for: Callable[[str], DesktopProvider], keep: Callable[[], frozenset[str]]) -> None:
        """``provider_for`` maps a kind to a provider, the same one each time; ``keep`` names desktops in use."""
        self._provider_for = provider_for
        self._keep = keep
        self._providers: set[DesktopProvider] = set()
        self._unreaped: set[DesktopProvider] = set()

    def provider_for(self, kind: str) -> DesktopProvider:
        """Return the provider of ``auto``, ``docker``, ``sandbox`` or ``local``."""
        provider = self._provider_for(kind)
        self._providers.add(provider)
        return provider

    def find(self, kind: str) -> DesktopProvider | None:
        """:meth:`provider_for`; ``None``, and a line in the log, for a kind that this server does not have."""
        try:
            return self.provider_for(kind)
        except (CambioError, OSError) as error:
            logger.warning("desktop provider not available: kind=%s error=%s", kind, error)
            return None

    async def start(self) -> None:
        """Remove desktops that belong to no session, then let the providers fill their pools."""
        for provider in list(self._providers):
            await self._reap(provider)
            await provider.start()

    async def reap(self) -> None:
        """Try again to remove what could not be removed."""
        for provider in self._unreaped | {provider for provider in self._providers if provider.unclean}:
            await self._reap(provider)

    def reap_later(self, kind: str) -> None:
        """A desktop of this kind could not be removed: look for it until that succeeds."""
        if kind != RECORDING:  # a recording leaves nothing behind
            self._unreaped.add(self.provider_for(kind))

    async def remove(self, row: SessionRow, seconds: float) -> None:
        """Remove the desktop of a stored session: within ``seconds`` if it answers, else when its engine does."""
        if (provider := self.find(row.desktop_kind)) is None:
            return
        try:
            async with asyncio.timeout(seconds):
                desktop = await provider.adopt(row.desktop_id or "", row.id)
                if desktop is not None:
                    await desktop.close()
        except (CambioError, OSError) as error:
            logger.warning("desktop not removed yet: session=%s error=%s", row.id, error)
        self._unreaped.add(provider)

    async def _reap(self, provider: DesktopProvider) -> None:
        try:
            for removed in await provider.reap(self._keep()):
                logger.warning("orphaned desktop removed: desktop=%s", removed)
        except CambioError as error:
            self._unreaped.add(provider)
            logger.warning("orphaned desktops not listed: error=%s", error.describe())
        except Exception:
            self._unreaped.add(provider)
            logger.exception("orphaned desktops not listed")
        else:
            self._unreaped.discard(provider)
