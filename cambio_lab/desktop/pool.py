"""Desktops created ahead of need."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from cambio_lab.errors import CambioError, InvalidRequest
from cambio_lab.settings import Settings

from .base import Size
from .connected import ConnectedDesktop
from .provider import DesktopOptions

log = logging.getLogger(__name__)

_BREATH = 0.25
"""Seconds without a request before the pool refills: making a desktop must not slow the one just asked for."""
_PATIENCE = (1.0, 5.0, 30.0, 60.0)
"""Seconds after a failure before the next attempt."""


class Pool:
    """Keeps ``size`` ready desktops of one kind; ``make`` makes one."""

    def __init__(self, make: Callable[[], Awaitable[ConnectedDesktop]], size: int) -> None:
        self._make = make
        self._size = size
        self._ready: deque[ConnectedDesktop] = deque()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._busy = 0

    def __len__(self) -> int:
        return len(self._ready)

    def ids(self) -> frozenset[str]:
        """``desktop_id`` of those that are ready."""
        return frozenset(desktop.desktop_id for desktop in self._ready)

    def start(self) -> None:
        """Begin to fill in the background."""
        if self._size > 0 and self._task is None:
            self._wanted.set()
            self._task = asyncio.create_task(self._fill(), name="desktop-pool")

    def take(self) -> ConnectedDesktop | None:
        """A ready desktop that still lives, or ``None``; never waits."""
        taken: ConnectedDesktop | None = None
        while self._ready and taken is None:
            desktop = self._ready.popleft()
            taken = desktop if desktop.connected else None
        self._wanted.set()
        return taken

    def busy(self, change: int) -> None:
        """Tell that a request is making a desktop itself (+1) or has made it (-1): the pool waits meanwhile."""
        self._busy += change
        self._wanted.set()

    async def _fill(self) -> None:
        failures = 0
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                async with asyncio.timeout(_BREATH):
                    await self._wanted.wait()
                continue  # another request came: wait for calm again
            except TimeoutError:
                pass
            if self._busy:
                continue
            for dead in [desktop for desktop in self._ready if not desktop.connected]:
                self._ready.remove(dead)
                await dead.close()
            if len(self._ready) >= self._size:
                continue
            try:
                self._ready.append(await self._make())
                failures = 0
            except CambioError as error:
                log.warning("no desktop could be made ready in advance: %s", error.describe())
                await asyncio.sleep(_PATIENCE[min(failures, len(_PATIENCE) - 1)])
                failures += 1
            self._wanted.set()

    async def stop(self) -> None:
        """Stop filling and remove what is ready."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        ready = list(self._ready)
        self._ready.clear()
        await asyncio.gather(*(desktop.close() for desktop in ready))


def usual_options(settings: Settings) -> DesktopOptions:
    """Return what a session gets that asks for nothing. :class:`InvalidRequest` for a setting that makes no sense."""
    return DesktopOptions(size=_size(settings.display), network=_mode(settings.network))


def _size(text: str) -> Size:
    width, _, height = text.lower().partition("x")
    try:
        return Size(int(width), int(height))
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is not a screen size.", details={"display": "must look like 1280x800"}
        ) from None


def _mode(text: str) -> Any:
    if text not in ("open", "none"):
        raise InvalidRequest(f"{text!r} is no network mode.", details={"network": "must be open or none"})
    return text
