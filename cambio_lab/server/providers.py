"""Where this server's desktops come from, and by which id an engine knows that they are this server's."""

from __future__ import annotations

import uuid
from pathlib import Path

from ..desktop import build_provider, make_provider
from ..desktop.provider import DesktopProvider
from ..errors import StoreUnavailable
from ..settings import Settings

FILE_NAME = "server-id"


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


def identity(directory: Path) -> str:
    """Return the id of the server whose data directory this is, the same at each start.

    A copy of the directory has the same id: start a server on one of the two only, or delete ``server-id`` in the
    copy. Raises :class:`StoreUnavailable` when the disk does not take it.
    """
    path = directory / FILE_NAME
    try:
        found = path.read_text().strip() if path.exists() else ""
        if not found:
            found = uuid.uuid4().hex
            new = path.with_name(f"{path.name}.new")  # whole or not at all: a killed server must leave no empty id
            new.write_text(found)
            new.replace(path)
    except OSError as error:
        raise StoreUnavailable("The data directory cannot be written to.", hint=f"Its disk says: {error}.") from error
    return found
