"""Where desktops come from: what a session asks for, and the contract of those that make desktops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from cambio_lab.errors import DesktopUnavailable

from .base import Desktop, Size

BY_NAME = "A desktop without isolation must be asked for by name: desktop=local."
ISOLATION = {"docker": "docker (isolated)", "sandbox": "sandbox (isolated)", "local": "local (not isolated)"}
"""What health, doctor, panel and docs say of a kind of desktop: the same words everywhere."""


@dataclass(frozen=True, slots=True)
class Progress:
    """``text`` is one line for people, ``fraction`` from 0 to 1 where it is known."""

    text: str
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class DesktopOptions:
    """What a session asks of its desktop. ``network`` is ``open``, ``none`` or ``allow`` with ``allow_hosts``."""

    size: Size = Size(1280, 800)
    network: Literal["open", "none", "allow"] = "open"
    allow_hosts: tuple[str, ...] = ()
    image: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[Progress], None] | None = field(default=None, compare=False)
    """Told how far the slow first time (pulling or building the image) is."""


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """``up`` decides ``/health``; ``summary`` is one line for people, ``fix`` the command that helps."""

    name: str
    up: bool
    summary: str
    fix: str = ""


class DesktopProvider(Protocol):
    """Where desktops come from."""

    name: str
    unclean: bool
    """A desktop that did not come to be may have left something behind: :meth:`reap` is due."""

    async def start(self) -> None:
        """Begin filling the pool in the background; returns at once."""

    async def acquire(self, session_id: str, options: DesktopOptions) -> Desktop:
        """A usable desktop. :class:`~cambio_lab.errors.DesktopUnavailable` says why not and what to do."""

    async def adopt(self, desktop_id: str, session_id: str) -> Desktop | None:
        """Take back a desktop that outlived the server, or ``None`` when it is gone."""

    async def reap(self, keep: frozenset[str]) -> list[str]:
        """Remove this server's desktops whose ``desktop_id`` is not in ``keep``; what was removed."""

    async def health(self) -> ProviderHealth: ...

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Remove the pool and every desktop but ``keep``; within 10 seconds."""


class UnavailableProvider:
    """Refuses every desktop. The rest of the server (history, records) works."""

    name = "none"
    unclean = False

    def __init__(self, sandbox: ProviderHealth) -> None:
        self._health = ProviderHealth(
            self.name,
            False,
            f"no Docker Engine answers, and no sandbox can be made ({sandbox.summary})",
            f"Start Docker and then this server again. Or, for a sandbox: {sandbox.fix} {BY_NAME}",
        )

    async def start(self) -> None:
        """Nothing to prepare."""

    async def acquire(self, session_id: str, options: DesktopOptions) -> Desktop:
        raise DesktopUnavailable(f"No isolated desktop: {self._health.summary}.", hint=self._health.fix)

    async def adopt(self, desktop_id: str, session_id: str) -> Desktop | None:
        return None

    async def reap(self, keep: frozenset[str]) -> list[str]:
        return []

    async def health(self) -> ProviderHealth:
        return self._health

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Nothing to stop."""
