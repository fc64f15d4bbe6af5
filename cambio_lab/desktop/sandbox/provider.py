"""Desktops in bubblewrap sandboxes of this machine: isolated, without an engine and without root."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cambio_lab.errors import CapacityReached, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import DesktopOptions, ProviderHealth, VncEndpoint
from ..browser.chromium import installed
from ..connected import ConnectedDesktop
from . import bubblewrap
from .children import Child
from .machine import Control, SandboxMachine, Supervision
from .network import Link, describe_open, plan_link, start_helper
from .probe import examine

log = logging.getLogger(__name__)

ISOLATION = "isolated: sandbox"
_START_TIMEOUT = 15.0
_END_TIMEOUT = 5.0
LEASE_SECONDS = 3600.0
"""A sandbox outlives its server this long, for the next start to adopt or remove it."""
_USERS = range(61184, 65520)
"""Where a server that is root takes a user for each sandbox from: none of these has a name or files."""
_LONGEST_SOCKET_PATH = 107


class SandboxDesktop(ConnectedDesktop):
    """Xvnc on a Unix socket in a private folder; process 1 of the sandbox outlives the server."""

    isolated = True

    def __init__(
        self, folder: Path, supervision: Supervision, settings: Settings, forget: Callable[[str], None]
    ) -> None:
        machine = SandboxMachine(str(folder / "control"))
        super().__init__(folder.name, VncEndpoint(unix_path=str(folder / "run" / "rfb")), machine, settings)
        self._folder = folder
        self._forget = forget
        self.supervision = supervision

    @property
    def has_browser(self) -> bool:
        return installed()

    async def alive(self) -> bool:
        return not self.supervision.ended

    async def cause(self) -> str:
        return "The desktop's sandbox has ended."

    def follow_start(self) -> None:
        """Let keys and programs wait for the keymap and the window manager."""
        self.machine.keyed.clear()
        self.machine.managed = asyncio.create_task(self._managed(), name="window-manager")

    async def _managed(self) -> None:
        try:
            await self.supervision.reached("ready")
            self.machine.keyed.set()
            await self.supervision.reached("managed")
        except DesktopUnavailable as error:
            log.info("%s: %s", self.desktop_id, error)
        finally:
            self.machine.keyed.set()

    async def release(self) -> None:
        try:
            if self.machine.managed is not None:
                self.machine.managed.cancel()
                await asyncio.wait([self.machine.managed])
            await super().release()
        finally:
            self._forget(self.desktop_id)

    async def _destroy(self) -> None:
        await end_sandbox(self.supervision, self._folder)


class SandboxProvider:
    """Makes :class:`SandboxDesktop`. They start in about a fifth of a second, so there is no pool."""

    name = "sandbox"
    unclean = False

    def __init__(self, settings: Settings, *, server_id: str, extra_hosts: dict[str, str] | None = None) -> None:
        self._settings = settings
        self._extra_hosts = extra_hosts or {}
        self.prefix = f"cambio-sandbox-{hashlib.sha256(server_id.encode()).hexdigest()[:10]}-"
        self._parent = _parent_folder(self.prefix)
        self._desktops: dict[str, SandboxDesktop] = {}
        self._starting: set[str] = set()
        self._children: dict[asyncio.Task[None], Child] = {}

    async def start(self) -> None:
        log.info("desktops are sandboxes of this machine")

    async def acquire(self, session_id: str, options: DesktopOptions) -> SandboxDesktop:
        if len(self._desktops) + len(self._starting) >= self._settings.max_desktops:
            raise CapacityReached(
                f"All {self._settings.max_desktops} desktops are in use.", hint="End a session, or raise max_desktops."
            )
        if options.image is not None:
            raise DesktopUnavailable("A sandbox has no image.", hint="Leave `image` out, or use the Docker desktop.")
        found = await examine()
        if not found.up:
            raise DesktopUnavailable(f"No sandbox can be made: {found.summary}.", hint=found.fix)
        link = plan_link(options, self._extra_hosts)
        user = _free_user() if os.geteuid() == 0 else None
        folder = self._parent / f"{self.prefix}{secrets.token_hex(4)}"
        self._starting.add(folder.name)  # before it exists: `reap` removes folders that are not in use
        try:
            folder.mkdir(mode=0o700)
            desktop = await self._launch(folder, options, link, user)
            self._desktops[desktop.desktop_id] = desktop
            return desktop
        except BaseException:
            await asyncio.shield(_remove(folder))
            raise
        finally:
            self._starting.discard(folder.name)

    async def _launch(self, folder: Path, options: DesktopOptions, link: Link, user: int | None) -> SandboxDesktop:
        (folder / "run").mkdir(mode=0o700)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        inner, outer = socket.socketpair()
        supervision: Supervision | None = None
        helping: asyncio.Task[None] | None = None
        try:
            control.bind(str(folder / "control"))
            if user is not None:
                for path in (folder, folder / "run", folder / "control"):
                    os.chown(path, user, user)
            outer.setblocking(False)
            async with asyncio.timeout(_START_TIMEOUT):
                fds = (control.fileno(), inner.fileno())
                argv = bubblewrap.command(folder / "run", *fds)
                body = self._watched(await Child.start(argv, fds, user, bubblewrap.program(), heard=True))
                inner.close()
                if not await asyncio.get_running_loop().sock_recv(outer, 1):
                    raise DesktopUnavailable(f"bubblewrap did not start: {await body.last_words()}.")
                config = bubblewrap.configuration(
                    self._settings, options.size, link, watch_memory=True, lease=LEASE_SECONDS
                )
                supervision = Supervision(await Control.open(str(folder / "control"), config))
                helping = asyncio.create_task(self._help(link, outer, user), name="sandbox-network")
                await supervision.reached("listening")
                desktop = SandboxDesktop(folder, supervision, self._settings, self._forget)
                await asyncio.gather(desktop.open(), helping)
                desktop.follow_start()
                return desktop
        except BaseException as error:
            if helping is not None:
                helping.cancel()
            if supervision is not None:
                await asyncio.shield(end_sandbox(supervision, folder))
            if isinstance(error, TimeoutError):
                raise DesktopUnavailable("The sandbox did not start in time.") from error
            raise
        finally:
            for sock in (control, inner, outer):
                sock.close()

    async def _help(self, link: Link, lifeline: socket.socket, user: int | None) -> None:
        if (child := await start_helper(link, lifeline, user)) is not None:
            self._watched(child)

    def _watched(self, child: Child) -> Child:
        """Keep a child until it has ended."""
        task = asyncio.create_task(child.wait(), name="sandbox-child")
        self._children[task] = child
        task.add_done_callback(self._children.pop)
        return child

    def _forget(self, name: str) -> None:
        self._desktops.pop(name, None)

    async def adopt(self, desktop_id: str, session_id: str) -> SandboxDesktop | None:
        """Take back a sandbox that outlived the server; ``None`` when it has ended."""
        folder = self._parent / desktop_id
        if not desktop_id.startswith(self.prefix) or "/" in desktop_id or not _is_ours(folder):
            return None
        try:
            supervision = Supervision(await Control.open(str(folder / "control"), {"op": "watch"}))
        except OSError:
            return None
        desktop = SandboxDesktop(folder, supervision, self._settings, self._forget)
        try:
            await supervision.reached("listening")
            await desktop.open()
        except BaseException:
            await supervision.close()
            raise
        desktop.follow_start()
        desktop.forget_keyboard()
        self._desktops[desktop_id] = desktop
        return desktop

    async def reap(self, keep: frozenset[str]) -> list[str]:
        """End sandboxes of this server that no session holds."""
        listed = await asyncio.to_thread(lambda: list(self._parent.glob(f"{self.prefix}*")))
        used = (
            keep | frozenset(self._desktops) | frozenset(self._starting)
        )  # read last: what was listed is known by now
        left = [path for path in listed if path.name not in used and _is_ours(path)]
        await asyncio.gather(*map(_remove, left))
        return [path.name for path in left]

    async def health(self) -> ProviderHealth:
        found = await examine()
        if not found.up:
            return ProviderHealth("sandbox", False, found.summary, found.fix)
        summary = f"sandbox ({ISOLATION}), {len(self._desktops)} in use; network open: {describe_open()}"
        return ProviderHealth("sandbox", True, summary)

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        try:
            async with asyncio.timeout(10):
                gone = [desktop for name, desktop in self._desktops.items() if name not in keep]
                await asyncio.gather(*(desktop.close() for desktop in gone))
                for desktop in list(self._desktops.values()):
                    await desktop.release()
                    await desktop.supervision.close()
                await self.reap(keep)
        except TimeoutError:
            log.warning("some sandboxes had not ended when the server stopped; its next start removes them")
        if self._children and not keep:
            await asyncio.wait(list(self._children), timeout=1)
        for task, child in list(self._children.items()):
            task.cancel()
            child.detach()


async def end_sandbox(supervision: Supervision, folder: Path) -> None:
    """Kill every process of a sandbox and remove its folder."""
    supervision.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_TIMEOUT):
            await supervision.wait_until_ended()
    await supervision.close()
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _remove(folder: Path) -> None:
    """The same for a sandbox that may have ended already, or never began."""
    try:
        control = await Control.open(str(folder / "control"), {"op": "watch"})
    except OSError:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    else:
        await end_sandbox(Supervision(control), folder)


def _is_ours(folder: Path) -> bool:
    """Whether a folder of the shared temporary directory was made by this user."""
    try:
        owner = folder.lstat().st_uid
    except OSError:
        return False
    return owner == os.geteuid() or (os.geteuid() == 0 and owner in _USERS)


def _free_user() -> int:
    """A user without name, files or processes for one sandbox of a server that is root."""
    return random.choice(_USERS)


def _parent_folder(prefix: str) -> Path:
    """The temporary directory, or /tmp where socket paths would not fit or another user could not enter."""
    folder = Path(tempfile.gettempdir())
    longest = len(os.fsencode(f"{folder}/{prefix}12345678/control"))
    closed = os.geteuid() == 0 and any(not path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
    return Path("/tmp") if longest > _LONGEST_SOCKET_PATH or closed else folder
