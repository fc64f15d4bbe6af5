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
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cambio_lab.errors import CapacityReached, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..browser.chromium import installed
from ..connected import ConnectedDesktop
from ..machine import run, until_managed
from ..provider import DesktopOptions, ProviderHealth
from .process import LocalProcess

log = logging.getLogger(__name__)

PROGRAMS = ("Xvnc", "openbox", "xterm", "setpriv", "xkbcomp")
INSTALL = "apt install tigervnc-standalone-server openbox xterm util-linux x11-xkb-utils"
_IMAGE = Path(__file__).resolve().parent.parent / "image"
"""The container's configuration files; the window manager's keys and the terminal's fonts are the same here."""
_START_TIMEOUT = 15.0
_LONGEST_SOCKET_PATH = 107


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
        self, folder: Path, machine: LocalMachine, children: list[asyncio.subprocess.Process], settings: Settings
    ) -> None:
        super().__init__(folder.name, VncEndpoint(unix_path=str(folder / "rfb")), machine, settings)
        self._folder = folder
        self._children = children

    @property
    def has_browser(self) -> bool:
        return installed()

    async def alive(self) -> bool:
        return self._children[0].returncode is None

    async def _destroy(self) -> None:
        # The X server last to be asked, first to matter: its clients end when it does.
        for child in self._children:
            with suppress(ProcessLookupError):
                child.kill()
        await asyncio.gather(*(child.wait() for child in self._children))
        if self.machine.managed is not None:
            self.machine.managed.cancel()
            await asyncio.wait([self.machine.managed])
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


class LocalProvider:
    """Makes :class:`LocalDesktop`. They are fast to start (about 0.3 s), so there is no pool."""

    name = "local"
    unclean = False

    def __init__(self, settings: Settings, *, server_id: str) -> None:
        self._settings = settings
        self._prefix = f"cambio-{hashlib.sha256(server_id.encode()).hexdigest()[:8]}-"
        self._desktops: dict[str, LocalDesktop] = {}
        self._folders: set[str] = set()
        """Names of the folders in use, also of desktops that are still being created."""
        self._starting = 0

    async def start(self) -> None:
        log.warning("desktops are local: programs in them run as this server's user, they are NOT isolated")

    async def acquire(self, session_id: str, options: DesktopOptions) -> LocalDesktop:
        if len(self._desktops) + self._starting >= self._settings.max_desktops:
            raise CapacityReached(
                f"All {self._settings.max_desktops} desktops are in use.", hint="End a session, or raise max_desktops."
            )
        if options.network != "open":
            raise DesktopUnavailable(
                "A local desktop cannot restrict the network.", hint="Use the Docker desktop, or network: open."
            )
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise DesktopUnavailable(
                f"The local desktop needs {', '.join(missing)}.", hint=f"Install it, for example with: {INSTALL}"
            )
        self._starting += 1
        try:
            desktop = await self._start_desktop(options)
        finally:
            self._starting -= 1
        self._desktops[desktop.desktop_id] = desktop
        return desktop

    async def _start_desktop(self, options: DesktopOptions) -> LocalDesktop:
        folder = _parent_folder(self._prefix) / f"{self._prefix}{secrets.token_hex(4)}"
        self._folders.add(folder.name)  # before it exists: `reap` removes folders that are not in use
        folder.mkdir(mode=0o700)
        (folder / "home" / "tmp").mkdir(parents=True)
        children: list[asyncio.subprocess.Process] = []
        machine: LocalMachine | None = None
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                cookie = folder / "cookie"
                cookie.write_bytes(_cookie())
                display = await _start_xvnc(folder, cookie, options, children)
                machine = LocalMachine(folder / "home", display, cookie)
                await run(machine, ["xkbcomp", "-w0", str(_IMAGE / "keymap.xkb"), display])
                await _start_clients(machine, children)
                desktop = _Owned(folder, machine, children, self._settings, self._forget)
                await desktop.open()
                return desktop
        except BaseException as error:
            for child in children:
                with suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
            if machine is not None and machine.managed is not None:
                machine.managed.cancel()
            shutil.rmtree(folder, ignore_errors=True)
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
        found = list(_parent_folder(self._prefix).glob(f"{self._prefix}*"))
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


def _parent_folder(prefix: str) -> Path:
    """Return the temporary directory, or /tmp where the path of a Unix socket (at most 107 bytes) would not fit."""
    folder = tempfile.gettempdir()
    longest = len(os.fsencode(f"{folder}/{prefix}12345678/managed"))
    return Path(folder if longest <= _LONGEST_SOCKET_PATH else "/tmp")


class _Owned(LocalDesktop):
    """Leaves its provider's list when it is closed."""

    def __init__(
        self,
        folder: Path,
        machine: LocalMachine,
        children: list[asyncio.subprocess.Process],
        settings: Settings,
        forget: Callable[[str], None],
    ) -> None:
        super().__init__(folder, machine, children, settings)
        self._forget = forget

    async def _destroy(self) -> None:
        await super()._destroy()
        self._forget(self.desktop_id)


def _cookie() -> bytes:
    """An Xauthority file with one entry for any host: without it every local user could open the display."""
    name, data = b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16)
    return struct.pack(">HHHH", 0xFFFF, 0, 0, len(name)) + name + struct.pack(">H", len(data)) + data


async def _start_xvnc(
    folder: Path, cookie: Path, options: DesktopOptions, children: list[asyncio.subprocess.Process]
) -> str:
    """Start the X server; its display (``:7``). It tells through ``-displayfd`` when it accepts connections."""
    read_end, write_end = os.pipe()
    size = options.size
    arguments = [
        *("setpriv", "--pdeathsig", "KILL", "--", "Xvnc", "-displayfd", str(write_end)),
        *("-geometry", f"{size.width}x{size.height}", "-depth", "24", "-nolisten", "tcp", "-auth", str(cookie)),
        *("-rfbunixpath", str(folder / "rfb"), "-rfbunixmode", "0600", "-rfbport", "-1", "-SecurityTypes", "None"),
        *("-AlwaysShared", "-AcceptSetDesktopSize=1", "-FrameRate=60", "-CompareFB=1", "-SendPrimary=0"),
        *("-SetPrimary=0", "-MaxCutText=16777216", "-desktop", "cambio_lab", "-dpi", "96", "-br"),
    ]
    try:
        child = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(write_end,),
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder / "home"), "LANG": "C.UTF-8"},
            start_new_session=True,
        )
    finally:
        os.close(write_end)
    children.append(child)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb"))
    try:
        number = (await reader.readline()).decode().strip()
    finally:
        transport.close()
    if not number:
        raise DesktopUnavailable("The local X server did not start.", hint="Run `Xvnc :99` to see why.")
    return f":{number}"


async def _managed(fifo: int) -> None:
    """The window manager says through ``fifo`` that it has the screen."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fifo, "rb", 0))
    try:
        await reader.readline()
    finally:
        transport.close()


async def _start_clients(machine: LocalMachine, children: list[asyncio.subprocess.Process]) -> None:
    fifo = f"{Path(machine.home).parent}/managed"
    os.mkfifo(fifo, 0o600)
    machine.managed = asyncio.create_task(_managed(os.open(fifo, os.O_RDWR | os.O_NONBLOCK)), name="window-manager")
    told = f"sh -c 'echo >{shlex.quote(fifo)}'"
    commands = [["openbox", "--config-file", str(_IMAGE / "openbox" / "rc.xml"), "--startup", told]]
    if shutil.which("xsetroot"):
        commands.append(["xsetroot", "-solid", "#2f5d86"])
    for command in commands:
        child = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--", *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=machine.environment,
            cwd=machine.home,
            start_new_session=True,
        )
        children.append(child)
