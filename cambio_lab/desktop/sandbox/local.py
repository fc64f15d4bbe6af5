"""Desktops without walls: the sandbox's programs as this server's user. It is NOT an isolation boundary."""

from __future__ import annotations

import logging
import secrets
import shutil
import signal
import struct
import sys
from pathlib import Path

from cambio_lab.errors import DesktopUnavailable

from ..provider import DesktopOptions, ProviderHealth
from . import bubblewrap
from .folders import make_folder
from .machine import SandboxMachine
from .provider import Plan, SandboxDesktop, SandboxProvider

log = logging.getLogger(__name__)

PROGRAMS = ("Xvnc", "openbox", "xterm", "xkbcomp")
INSTALL = "apt install tigervnc-standalone-server openbox xterm x11-xkb-utils"


class LocalDesktop(SandboxDesktop):
    """Gone with this server."""

    isolated = False
    outlives_server = False


class LocalProvider(SandboxProvider):
    """Makes :class:`LocalDesktop`."""

    name = "local"
    desktop = LocalDesktop
    end_signal = signal.SIGTERM
    lease = 1.0

    async def start(self) -> None:
        log.warning("desktops are local: programs in them run as this server's user, they are NOT isolated")
        await super().start()

    async def plan(self, folder: Path, options: DesktopOptions) -> Plan:
        if options.network != "open":
            raise DesktopUnavailable(
                "A local desktop cannot restrict the network.", hint="Use the Docker desktop, or network: open."
            )
        if not (health := await self.health()).up:
            raise DesktopUnavailable(f"No local desktop: {health.summary}.", hint=health.fix)
        make_folder(folder, None)
        places = bubblewrap.Places(*(str(folder / name) for name in ("home", "desktop", "share", "run/rfb")))
        cookie = _prepare(folder)
        told = bubblewrap.common(self.settings, places)
        told["environment"] |= {"XAUTHORITY": cookie, "TMPDIR": f"{places.home}/tmp"}
        told["x"] = ["Xvnc", "-auth", cookie, *bubblewrap.x_server(options.size, places.rfb)]
        return Plan(bubblewrap.interpreter(sys.executable), told | {"lease": self.lease}, self.machine(folder))

    def machine(self, folder: Path) -> SandboxMachine:
        home = str(folder / "home")
        return SandboxMachine(folder, home, (home,), sys.executable)

    async def adopt(self, desktop_id: str, session_id: str) -> None:
        """Nothing to adopt: local desktops end with their server."""

    async def health(self) -> ProviderHealth:
        if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
            return ProviderHealth(self.name, False, f"missing: {', '.join(missing)}", INSTALL)
        return ProviderHealth(self.name, True, self.counts())


def _prepare(folder: Path) -> str:
    """Make the home, and an Xauthority file for any host: without it every user of this machine could open the display.

    Returns that file's path.
    """
    for name in ("home/tmp", "desktop"):
        (folder / name).mkdir(parents=True)
    kind, data = b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16)
    cookie = folder / "cookie"
    cookie.write_bytes(struct.pack(">HHHH", 0xFFFF, 0, 0, len(kind)) + kind + struct.pack(">H", len(data)) + data)
    return str(cookie)
