"""Desktops without a process, for tests and benchmarks of scheduling: instant, and they count who is open."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from pathlib import Path
from typing import Any

from cambio_lab.desktop.base import Screenshot, Size
from cambio_lab.desktop.provider import DesktopOptions, ProviderHealth
from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings
from tests.agent.fake_desktop import FakeDesktop, png

SMALL = Size(320, 320)
OPEN_LOG = "CAMBIO_TEST_DESKTOPS"
"""Names a file to which every desktop's beginning and end is written, for tests with several processes."""


@cache
def screenshot() -> bytes:
    return png(SMALL)


class InstantDesktop(FakeDesktop):
    """A desktop in memory that knows the few commands the tests' tasks use."""

    def __init__(self, provider: InstantProvider, desktop_id: str) -> None:
        super().__init__(Size(8, 8))
        self._size = SMALL
        self._screenshots = [screenshot()] * 3
        self.desktop_id = desktop_id
        self._provider = provider

    async def run_command(self, command: str, timeout: float = 120.0) -> Any:
        """``echo TEXT > FILE``, really done."""
        if command.startswith("echo ") and " > " in command:
            text, _, path = command.removeprefix("echo ").partition(" > ")
            self.files[path] = f"{text}\n".encode()
        return await super().run_command(command, timeout)

    async def thumbnail(self, width: int = 320) -> Screenshot:
        return Screenshot(screenshot(), "image/png", *SMALL)

    async def close(self) -> None:
        if self._provider.open.pop(self.desktop_id, None) is not None:
            log("close", self.desktop_id)
        await super().close()


class InstantProvider:
    """``refuse`` makes that many of the next desktops fail to start."""

    name = "instant"
    unclean = False

    def __init__(self) -> None:
        self.open: dict[str, InstantDesktop] = {}
        self.most_open = 0
        self.refuse = 0
        self.made = 0

    async def start(self) -> None:
        """Nothing to fill."""

    async def acquire(self, session_id: str, options: DesktopOptions) -> InstantDesktop:
        await asyncio.sleep(0)
        if self.refuse:
            self.refuse -= 1
            raise DesktopUnavailable("The engine is away.", hint="Start it.")
        self.made += 1
        desktop = self.open[session_id] = InstantDesktop(self, session_id)
        self.most_open = max(self.most_open, len(self.open))
        log("open", session_id)
        return desktop

    async def adopt(self, desktop_id: str, session_id: str) -> None:
        return None

    async def reap(self, keep: frozenset[str]) -> list[str]:
        return []

    async def health(self) -> ProviderHealth:
        return ProviderHealth("instant", True, "in memory")

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        for desktop in list(self.open.values()):
            await desktop.close()


def log(what: str, desktop_id: str) -> None:
    if path := os.environ.get(OPEN_LOG):
        with Path(path).open("a") as file:
            file.write(f"{what} {desktop_id} {os.getpid()}\n")


async def make_instant(settings: Settings, *, server_id: str, kind: str | None = None) -> InstantProvider:
    """For ``Experiment(make_provider=...)``, also on workers."""
    return InstantProvider()
