"""Where desktops come from: what a session asks for, the contract of those that make desktops, and their pool."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from cambio_lab.errors import CambioError, DesktopUnavailable, InvalidRequest
from cambio_lab.settings import Settings

from .base import Desktop, Size

if TYPE_CHECKING:
    from .connected import ConnectedDesktop

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST = 253
ISOLATION = {"docker": "docker (isolated)", "sandbox": "sandbox (isolated)", "local": "local (not isolated)"}
"""What health, doctor, panel and docs say of a kind of desktop: the same words everywhere."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``text`` is one line for people, ``fraction`` from 0 to 1 where it is known."""

    text: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class DesktopOptions:
    """What a session asks of its desktop. ``network`` is ``open``, ``none`` or ``allow`` with ``allow_hosts``.

    Raises :class:`~cambio_lab.errors.DesktopUnavailable` for an allow list that is not valid.
    """

    size: Size = Size(1280, 800)
    network: Literal["open", "none", "allow"] = "open"
    allow_hosts: tuple[str, ...] = ()
    image: str | None = None
    progress: Callable[[Progress], None] | None = field(default=None, compare=False)
    """Told how far the slow first time (pulling or building the image) is."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "allow_hosts", domains(self.allow_hosts))
        except ValueError as error:
            raise DesktopUnavailable(f"The allow list is not valid: {error}.") from error


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """``up`` decides ``/health``; ``summary`` is one line for people, ``fix`` the command that helps."""

    name: str
    up: bool
    summary: str
    fix: str = ""


def domain(host: object) -> str:
    """``Example.org`` as ``example.org``, ``*.example.org`` as ``.example.org``. ``ValueError`` says what is wrong."""
    if not isinstance(host, str):
        raise ValueError(f"{host!r} is not text")
    if not host.isascii():
        raise ValueError(f"{host!r} is not ASCII: write the name as xn--...")
    if "/" in host:
        raise ValueError(f"{host!r} is an address, not a host name: leave out the scheme and the path")
    if ":" in host:
        raise ValueError(f"{host!r} has a port or is an IPv6 address: name the host alone")
    name = host.lower().removesuffix(".")
    below = name.startswith((".", "*."))
    name = name.removeprefix("*").removeprefix(".") if below else name
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise ValueError(f"{host!r} is not a host name such as example.org, or .example.org with all below it")
    return f".{name}" if below else name


def domains(hosts: Iterable[object]) -> tuple[str, ...]:
    """Each name once, without those that an entry with a leading dot covers: squid does not start with both."""
    found = tuple(dict.fromkeys(map(domain, hosts)))
    wide = {name for name in found if name.startswith(".")}

    def covered(name: str) -> bool:
        labels = name.removeprefix(".").split(".")
        return any("." + ".".join(labels[start:]) in wide for start in range(name.startswith("."), len(labels)))

    return tuple(name for name in found if not covered(name))


class DesktopProvider(Protocol):
    """Where desktops come from. What has a body is for those that keep nothing; a subclass need not repeat it."""

    name: str
    unclean: bool = False
    """A desktop that did not come to be may have left something behind: :meth:`reap` is due."""

    async def start(self) -> None:
        """Begin filling the pool in the background; returns at once."""
        return

    async def acquire(self, session_id: str, options: DesktopOptions) -> Desktop:
        """A usable desktop. :class:`~cambio_lab.errors.DesktopUnavailable` says why not and what to do."""
        ...

    async def adopt(self, desktop_id: str, session_id: str) -> Desktop | None:
        """Take back a desktop that outlived the server, or ``None`` when it is gone."""
        return None

    async def reap(self, keep: frozenset[str]) -> list[str]:
        """Remove this server's desktops whose ``desktop_id`` is not in ``keep``; what was removed."""
        return []

    async def health(self) -> ProviderHealth: ...

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Remove the pool and every desktop but ``keep``; within 10 seconds."""
        return


D = TypeVar("D", bound="ConnectedDesktop")
log = logging.getLogger(__name__)

_BREATH = 0.25
"""Seconds without a request before the pool refills: making a desktop must not slow the one just asked for."""
_PATIENCE = (1.0, 5.0, 30.0, 60.0)
"""Seconds after a failure before the next attempt."""


class Pool(Generic[D]):
    """Keeps ``settings.pool_size`` ready desktops of the usual kind and lists those in use; ``make`` makes one."""

    def __init__(self, make: Callable[[DesktopOptions], Awaitable[D]], settings: Settings) -> None:
        self.in_use: dict[str, D] = {}
        """By ``desktop_id``."""
        self.usual = usual_options(settings)
        """What a session gets that asks for nothing."""
        self._make = make
        self._size = settings.pool_size
        self._ready: deque[D] = deque()
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._busy = 0

    def __str__(self) -> str:
        return f"{len(self.in_use)} in use, {len(self._ready)} ready"

    def ids(self) -> frozenset[str]:
        """``desktop_id`` of those that are ready or in use."""
        return frozenset(desktop.desktop_id for desktop in self._ready) | frozenset(self.in_use)

    def forget(self, desktop: ConnectedDesktop) -> None:
        """A desktop is no longer owned; the reaper removes it unless its id is in ``keep``."""
        if self.in_use.get(desktop.desktop_id) is desktop:
            del self.in_use[desktop.desktop_id]

    def start(self) -> None:
        """Begin to fill in the background."""
        if self._size > 0 and self._task is None:
            self._wanted.set()
            self._task = asyncio.create_task(self._fill(), name="desktop-pool")

    async def acquire(self, options: DesktopOptions) -> D:
        """Return a ready desktop if ``options`` are the usual ones, else a new one; the pool waits meanwhile."""
        usual, desktop = self.usual, None
        if (options.size, options.network, options.image) == (usual.size, usual.network, usual.image):
            self._wanted.set()
            while self._ready and (desktop is None or not desktop.connected):
                desktop = self._ready.popleft()
        if desktop is None or not desktop.connected:
            self._busy += 1
            try:
                desktop = await self._make(options)
            finally:
                self._busy -= 1
                self._wanted.set()
        self.in_use[desktop.desktop_id] = desktop
        return desktop

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
                self._ready.append(await self._make(self.usual))
                failures = 0
            except CambioError as error:
                log.warning("no desktop could be made ready in advance: %s", error.describe())
                await asyncio.sleep(_PATIENCE[min(failures, len(_PATIENCE) - 1)])
                failures += 1
            self._wanted.set()

    async def stop(self, keep: frozenset[str]) -> None:
        """Stop filling, remove what is ready or in use; release those in ``keep``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        gone = [*self._ready, *(desktop for name, desktop in self.in_use.items() if name not in keep)]
        self._ready.clear()
        await asyncio.gather(*(desktop.close() for desktop in gone))
        for desktop in list(self.in_use.values()):
            await desktop.release()


def usual_options(settings: Settings) -> DesktopOptions:
    """Return what a session gets that asks for nothing. :class:`InvalidRequest` for a setting that makes no sense."""
    width, _, height = settings.display.lower().partition("x")
    network: Any = settings.network
    try:
        size = Size(int(width), int(height))
    except ValueError:
        raise InvalidRequest(
            f"{settings.display!r} is not a screen size.", details={"display": "must look like 1280x800"}
        ) from None
    if network not in ("open", "none"):
        raise InvalidRequest(f"{network!r} is no network mode.", details={"network": "must be open or none"})
    return DesktopOptions(size=size, network=network)
