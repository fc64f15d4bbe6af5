"""Where this server's desktops come from: the default kind, and the other one if a session asks for it."""

from __future__ import annotations

from ..desktop import build_provider, make_provider
from ..desktop.base import DesktopProvider
from ..settings import Settings


class Providers:
    """One provider of each kind, made when it is first needed."""

    def __init__(self, settings: Settings, server_id: str) -> None:
        self._settings = settings
        self._server_id = server_id
        self._made: dict[str, DesktopProvider] = {}
        self._default: DesktopProvider | None = None

    async def open(self) -> DesktopProvider:
        """The default provider; for ``auto`` the engine is asked once, now."""
        self._default = await make_provider(self._settings, server_id=self._server_id)
        self._made[self._default.name] = self._default
        return self._default

    def provider_for(self, kind: str) -> DesktopProvider:
        """``auto``, ``docker``, ``sandbox`` or ``local`` as a provider, the same one each time."""
        assert self._default is not None
        if kind == "auto":
            return self._default
        if kind not in self._made:
            self._made[kind] = build_provider(self._settings, self._server_id, kind)
        return self._made[kind]

    async def stop(self, keep: frozenset[str]) -> None:
        """Remove what is left of any kind but ``keep``."""
        for provider in self._made.values():
            await provider.stop(keep=keep)
