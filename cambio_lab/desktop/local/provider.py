"""The embedded desktop: Xvnc and a window manager as children of this server. It is NOT an isolation boundary."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import shlex
import shutil
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..browser.chromium import installed
from ..connected import ConnectedDesktop
from ..machine import run, until_managed
from ..provider import DesktopOptions, ProviderHealth
from ..sandbox.bubblewrap import x_server
from ..sandbox.folders import parent_folder
from .process import LocalProcess

log = logging.getLogger(__name__)

PROGRAMS = ("Xvnc", "openbox", "xterm", "setpriv", "xkbcomp")
INSTALL = "apt install tigervnc-standalone-server openbox xterm util-linux x11-xkb-utils"
_IMAGE = Path(__file__).resolve().parent.parent / "image"
"""The container's configuration files; the window manager's keys and the terminal's fonts are the same here."""
_START_TIMEOUT = 15.0
Children = list[asyncio.subprocess.Process]
"""The X server and its first clients."""


class LocalMachine:
    """Programs run as the server's user, with a home, a display and an environment of their own."""

    python = sys.executable
    managed: asyncio.Task[None] | None = None

    def __init__(self, home: Path, display: str, cookie_file: Path) -> None:
        self.home = str(home)
        self.roots: Sequence[str] = (self.home,)
        self.keyed = asyncio.Event()
        self.keyed.set()  # a desktop is handed out with its keymap
        # Nothing of the server's environment: an API key in it is not the desktop's business.
        self.environment = {
            "HOME": self.home,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/games",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/bash",
            "USER": os.environ.get("USER", "user"),
            "DISPLAY": display,
            "XAUTHORITY": str(cookie_file),
            "XENVIRONMENT": str(_IMAGE / "Xresources"),
            "TMPDIR": str(home / "tmp"),
            "XDG_RUNTIME_DIR": str(home.parent),
            "NO_AT_BRIDGE": "1",
            "LIBGL_ALWAYS_SOFTWARE": "1",
        }

    async def spawn(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> LocalProcess:
        await until_managed(self)
        return await LocalProcess.start(argv, self.environment | dict(environment or {}), self.home)


class LocalDesktop(ConnectedDesktop):
    """Xvnc on a Unix socket in a private folder; gone with this server."""

    def __init__(
        self, folder: Path, machine: LocalMachine, children: Children, settings: Settings, forget: Callable[[str], None]
    ) -> None:
        super().__init__(folder.name, VncEndpoint(unix_path=str(folder / "rfb")), machine, settings)
        self._folder = folder
        self._children = children
        self._forget = forget

    @property
    def has_browser(self) -> bool:
        return installed()

    async def alive(self) -> bool:
        return self._children[0].returncode is None

    async def _destroy(self) -> None:
        await _remove(self._children, self._folder)
        self._forget(self.desktop_id)


class LocalProvider:
    """Makes :class:`LocalDesktop`. They are fast to start (about 0.3 s), so there is no pool."""

    name = "local"
    unclean = False

    def __init__(self, settings: Settings, *, server_id: str) -> None:
        self._settings = settings
        self._prefix = f"cambio-{hashlib.sha256(server_id.encode()).hexdigest()[:8]}-"
        self._parent = parent_folder(self._prefix)
        self._desktops: dict[str, LocalDesktop] = {}
        self._folders: set[str] = set()
        """Names of the folders in use, also of desktops that are still being created."""

    async def start(self) -> None:
        log.warning("desktops are local: programs in them run as this server's user, they are NOT isolated")

    async def acquire(self, session_id: str, options: DesktopOptions) -> LocalDesktop:
        if options.network != "open":
            raise DesktopUnavailable(
                "A local desktop cannot restrict the network.", hint="Use the Docker desktop, or network: open."
            )
        health = await self.health()
        if not health.up:
            raise DesktopUnavailable(f"No local desktop: {health.summary}.", hint=health.fix)
        desktop = await self._start_desktop(options)
        self._desktops[desktop.desktop_id] = desktop
        return desktop

    async def _start_desktop(self, options: DesktopOptions) -> LocalDesktop:
        folder = self._parent / f"{self._prefix}{secrets.token_hex(4)}"
        self._folders.add(folder.name)  # before it exists: `reap` removes folders that are not in use
        folder.mkdir(mode=0o700)
        (folder / "home" / "tmp").mkdir(parents=True)
        children: Children = []
        machine: LocalMachine | None = None
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                cookie = folder / "cookie"
                cookie.write_bytes(_cookie())
                display = await _start_xvnc(folder, cookie, options, children)
                machine = LocalMachine(folder / "home", display, cookie)
                await run(machine, ["xkbcomp", "-w0", str(_IMAGE / "keymap.xkb"), display])
                await _start_clients(machine, children)
                desktop = LocalDesktop(folder, machine, children, self._settings, self._forget)
                await desktop.open()
                return desktop
        except BaseException as error:
            if machine is not None and machine.managed is not None:
                machine.managed.cancel()
            await asyncio.shield(_remove(children, folder))
            self._forget(folder.name)
            if isinstance(error, TimeoutError):
                raise DesktopUnavailable("The local X server did not start in time.") from error
            raise

    async def adopt(self, desktop_id: str, session_id: str) -> None:
        """Nothing to adopt: local desktops die with their server."""

    async def reap(self, keep: frozenset[str]) -> list[str]:
        """Remove folders that no desktop of this process uses; a session may not know its new desktop yet."""
        return await asyncio.to_thread(self._remove_folders, keep)

    def _forget(self, name: str) -> None:
        self._desktops.pop(name, None)
        self._folders.discard(name)

    def _remove_folders(self, keep: frozenset[str]) -> list[str]:
        """Remove what a killed server with our id left; its processes died with it."""
        found = list(self._parent.glob(f"{self._prefix}*"))
        used = keep | frozenset(self._folders)  # read after the listing: a folder that was listed is known by now
        left = [folder for folder in found if folder.name not in used]
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
        return [folder.name for folder in left]

    async def health(self) -> ProviderHealth:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            return ProviderHealth("local", False, f"missing: {', '.join(missing)}", INSTALL)
        return ProviderHealth("local", True, "local (not isolated)")

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        # Children cannot outlive us, so keeping any is not possible.
        await asyncio.gather(*(desktop.close() for desktop in list(self._desktops.values())))
        await self.reap(frozenset())


async def _remove(children: Children, folder: Path) -> None:
    """Kill what was started, and remove the folder."""
    for child in children:
        with suppress(ProcessLookupError):
            child.kill()
    await asyncio.gather(*(child.wait() for child in children))
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _cookie() -> bytes:
    """An Xauthority file with one entry for any host: without it every local user could open the display."""
    name, data = b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16)
    return struct.pack(">HHHH", 0xFFFF, 0, 0, len(name)) + name + struct.pack(">H", len(data)) + data


async def _start_xvnc(folder: Path, cookie: Path, options: DesktopOptions, children: Children) -> str:
    """Start the X server; its display (``:7``). It tells through ``-displayfd`` when it accepts connections."""
    read_end, write_end = os.pipe()
    shown = x_server(options.size, str(folder / "rfb"))
    arguments = ["Xvnc", "-displayfd", str(write_end), "-auth", str(cookie), *shown]
    home = str(folder / "home")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": home, "LANG": "C.UTF-8"}
    try:
        children.append(await _start_child(arguments, environment, home, write_end))
    finally:
        os.close(write_end)
    number = await _line(read_end)
    if not number:
        raise DesktopUnavailable("The local X server did not start.", hint="Run `Xvnc :99` to see why.")
    return f":{number}"


async def _start_clients(machine: LocalMachine, children: Children) -> None:
    """Start the window manager, which says through a FIFO that it has the screen, and colour the background."""
    fifo = str(Path(machine.home).parent / "managed")
    os.mkfifo(fifo, 0o600)
    machine.managed = asyncio.create_task(_managed(os.open(fifo, os.O_RDWR | os.O_NONBLOCK)), name="window-manager")
    told = f"sh -c 'echo >{shlex.quote(fifo)}'"
    commands = [["openbox", "--config-file", str(_IMAGE / "openbox" / "rc.xml"), "--startup", told]]
    if shutil.which("xsetroot"):
        commands.append(["xsetroot", "-solid", "#2f5d86"])
    for command in commands:
        children.append(await _start_child(command, machine.environment, machine.home))


async def _start_child(
    argv: Sequence[str], environment: Mapping[str, str], folder: str, *descriptors: int
) -> asyncio.subprocess.Process:
    """Start a program without streams that dies with this process."""
    return await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "--", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=descriptors,
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
    )


async def _managed(fifo: int) -> None:
    await _line(fifo)


async def _line(descriptor: int) -> str:
    """Read one line of a pipe, and close it."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    try:
        return (await reader.readline()).decode().strip()
    finally:
        transport.close()
