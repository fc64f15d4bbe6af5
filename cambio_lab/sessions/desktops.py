"""The desktop providers that a server's sessions use, and the desktops that still have to be removed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cambio_lab.desktop.base import DesktopProvider
from cambio_lab.errors import CambioError
from cambio_lab.replay.replay_desktop import ReplayProvider
from cambio_lab.store import SessionRow

logger = logging.getLogger(__name__)


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

    @property
    def unclean(self) -> bool:
        """Whether a desktop could not be removed, or a provider says that it left one behind."""
        return bool(self._unreaped) or any(provider.unclean for provider in self._providers)

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
        if kind != ReplayProvider.name:  # a recording leaves nothing behind
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
