"""What the handlers work with: made by the extension, found by every handler in Tornado's settings."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..desktop.base import Desktop
from ..errors import CambioError, StoreUnavailable
from ..settings import Settings
from . import metrics
from .rate_limit import RateLimiter

if TYPE_CHECKING:
    from ..recording.contents import Contents
    from ..sessions.registry import Registry
    from ..store import Store
    from .system import HealthCheck

KEY = "cambio_lab_services"


class McpEndpoint(Protocol):
    """What ``/mcp`` answers with."""

    async def application(self) -> Any:
        """Return the ASGI application, running."""


class Thumbnails:
    """The last small image of each desktop's screen and width, made once for all viewers; it goes with its desktop."""

    def __init__(self) -> None:
        self._last: weakref.WeakKeyDictionary[Any, dict[int, tuple[object, bytes]]] = weakref.WeakKeyDictionary()

    async def get(self, desktop: Desktop, width: int) -> bytes:
        """A JPEG ``width`` pixels wide. Raises what the desktop raises when it is away."""
        revision = desktop.revision
        kept = self._last.setdefault(desktop, {})
        if revision is not None and width in kept and kept[width][0] == revision:
            return kept[width][1]
        image = await desktop.thumbnail(width)
        if revision is not None:
            kept[width] = (revision, image.data)
        return image.data


class Services:
    """Settings, rate limiter, and the registry once the start hook has built it.

    Requests that come before that wait for it; when it could not be built they are answered with the reason (503).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limiter = RateLimiter(settings)
        self.failure: CambioError | None = None
        self.health: HealthCheck | None = None
        self.thumbnails = Thumbnails()
        self.mcp: McpEndpoint | None = None
        self.export: Callable[[Contents, str], tuple[str, bytes]] | None = None
        """Writes a run in a format by name: the file's ending and content. Blocks."""
        self.formats: Callable[[], list[dict[str, Any]]] | None = None
        self.desktop_kind = settings.desktop
        """``docker``, ``sandbox`` or ``local``, once the start hook knows."""
        self._registry: Registry | None = None
        self._store: Store | None = None
        self._settled = asyncio.Event()

    def ready(self, registry: Registry, store: Store) -> None:
        """The start hook is done, whatever kept it from that before."""
        self._registry, self._store = registry, store
        self.failure = None
        metrics.SESSIONS.set_function(lambda: len(registry.sessions))
        self._settled.set()

    def failed(self, error: CambioError) -> None:
        """The start hook gave up, or tries again; every request that needs a session is answered with ``error``."""
        self.failure = error
        self._settled.set()

    def stopping(self) -> None:
        """The server goes down; nothing new is begun."""
        self.failed(StoreUnavailable("The server is shutting down."))

    async def settled(self) -> None:
        """Wait until the start hook is done, well or badly."""
        await self._settled.wait()

    async def registry(self) -> Registry:
        """The registry, once it exists. Raises what kept it from existing."""
        if self.failure is not None:
            raise self.failure
        if self._registry is None:
            await self._settled.wait()
            return await self.registry()
        return self._registry

    def session_ended(self, session_id: str) -> bool:
        """Whether this session was live once and is no longer."""
        return self._registry is not None and self._registry.ended(session_id)

    async def store(self) -> Store:
        """The store, once it is open. Raises what kept it from opening."""
        await self.registry()
        assert self._store is not None
        return self._store
