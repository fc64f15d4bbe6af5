"""Desktops of this machine: in bubblewrap sandboxes, isolated without an engine and without root; or without walls."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import secrets
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..browser.chromium import PROGRAMS as BROWSERS
from ..connected import ConnectedDesktop, Forget
from ..provider import ISOLATION, DesktopOptions, Pool, ProviderHealth
from . import RLIMITS, Child, bubblewrap, find_limits, scope
from .machine import USERS, SandboxMachine, Supervision, end_sandbox, is_ours, make_folder, parent_folder
from .network import Link, plan_link, start_helper
from .probe import HOST, describe, examine, find_root

log = logging.getLogger(__name__)

_START_TIMEOUT = 15.0


@dataclass(frozen=True)
class Plan:
    """How one desktop is started: ``argv`` without its two descriptors, what process 1 is told, and as which user."""

    argv: Sequence[str]
    configuration: dict[str, Any]
    link: Link = Link("none")
    user: int | None = None


class SandboxDesktop(ConnectedDesktop):
    """Xvnc on a Unix socket in a private folder; process 1 of the sandbox outlives the server."""

    isolated = True
    outlives_server = True

    def __init__(self, supervision: Supervision, machine: SandboxMachine, settings: Settings, forget: Forget) -> None:
        endpoint = VncEndpoint(unix_path=str(supervision.folder / "run" / "rfb"))
        super().__init__(supervision.folder.name, endpoint, machine, settings, forget)
        self.supervision = supervision

    @property
    def has_browser(self) -> bool:
        root = find_root(self.settings) if self.isolated else HOST
        return any(bubblewrap.has_program(root, name) for name in BROWSERS)

    async def alive(self) -> bool:
        return not self.supervision.ended

    async def cause(self) -> str:
        return "The desktop's sandbox has ended."

    async def follow(self) -> None:
        """Tell the machine how far the start is."""
        await self.supervision.reached("ready")
        self.machine.keyed.set()
        await self.supervision.reached("managed")

    async def _destroy(self) -> None:
        await self.supervision.end()


class SandboxProvider:
    """Makes :class:`SandboxDesktop`, keeps a warm pool, adopts or removes what an earlier process left.

    ``extra_hosts`` are names that the filtering proxy knows besides DNS.
    """

    name = "sandbox"
    unclean = False
    desktop: type[SandboxDesktop] = SandboxDesktop
    end_signal = signal.SIGKILL
    """Ends process 1, and with it the rest."""
    lease = 3600.0
    """Seconds for which a desktop outlives its server, for the next start to adopt or remove it."""

    def __init__(self, settings: Settings, *, server_id: str, extra_hosts: dict[str, str] | None = None) -> None:
        self.settings = settings
        self._extra_hosts = extra_hosts or {}
        self.prefix = f"cambio-{self.name}-{hashlib.sha256(server_id.encode()).hexdigest()[:10]}-"
        self._parent = parent_folder(self.prefix)
        self._starting: set[str] = set()
        self._children: dict[asyncio.Task[None], Child] = {}
        self._pool = Pool(self._make, settings)

    async def start(self) -> None:
        self._pool.start()

    async def acquire(self, session_id: str, options: DesktopOptions) -> SandboxDesktop:
        if options.image is not None:
            raise DesktopUnavailable("A sandbox has no image.", hint="Leave `image` out, or use the Docker desktop.")
        return await self._pool.acquire(options)

    async def _make(self, options: DesktopOptions) -> SandboxDesktop:
        folder = self._parent / f"{self.prefix}{secrets.token_hex(4)}"
        self._starting.add(folder.name)  # before it exists: `reap` removes folders that are not in use
        try:
            return await self._launch(folder, await self.plan(folder, options))
        except BaseException:
            await asyncio.shield(end_sandbox(folder, self.end_signal))
            raise
        finally:
            self._starting.discard(folder.name)

    async def plan(self, folder: Path, options: DesktopOptions) -> Plan:
        """Decide how a desktop is started, and make its folder. :class:`DesktopUnavailable` where none can be had."""
        found = await examine(self.settings)
        if not found.up:
            raise DesktopUnavailable(f"No sandbox can be made: {found.summary}.", hint=found.fix)
        root = find_root(self.settings)
        link = plan_link(options, self._extra_hosts, root)
        make_folder(folder, user := random.choice(USERS) if os.geteuid() == 0 else None)
        watch = await find_limits() == RLIMITS
        told = bubblewrap.walled(self.settings, options.size, link, root, watch_memory=watch, lease=self.lease)
        argv = [*([] if watch else scope(self.settings)), *bubblewrap.command(root, folder / "run")]
        return Plan(argv, told, link, user)

    def machine(self, folder: Path) -> SandboxMachine:
        """Where the programs of the desktop in ``folder`` run."""
        return SandboxMachine(folder)

    async def _launch(self, folder: Path, plan: Plan) -> SandboxDesktop:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        inner, outer = socket.socketpair()
        supervision: Supervision | None = None
        helping: asyncio.Task[None] | None = None
        try:
            control.bind(str(folder / "control"))
            if plan.user is not None:
                os.chown(folder / "control", plan.user, plan.user)
            outer.setblocking(False)
            async with asyncio.timeout(_START_TIMEOUT):
                fds = (control.fileno(), inner.fileno())
                told = bubblewrap.program(plan.configuration)
                body = self._watched(await Child.start([*plan.argv, *map(str, fds)], fds, plan.user, told, heard=True))
                inner.close()
                if not await asyncio.get_running_loop().sock_recv(outer, 1):
                    raise DesktopUnavailable(f"The {self.name} desktop did not start: {await body.last_words()}.")
                supervision = await Supervision.open(folder, self.end_signal)
                helping = asyncio.create_task(self._help(plan.link, outer, plan.user), name="sandbox-network")
                await supervision.reached("listening")
                desktop = self.desktop(supervision, self.machine(folder), self.settings, self._pool.forget)
                await asyncio.gather(desktop.open(), helping)
                desktop.follow_start(desktop.follow())
                return desktop
        except BaseException as error:
            if helping is not None:
                helping.cancel()
            if supervision is not None:
                await asyncio.shield(supervision.end())
            if isinstance(error, TimeoutError):
                raise DesktopUnavailable(f"The {self.name} desktop did not start in time.") from error
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

    async def adopt(self, desktop_id: str, session_id: str) -> SandboxDesktop | None:
        """Take back a sandbox that outlived the server; ``None`` when it has ended."""
        folder = self._parent / desktop_id
        if not desktop_id.startswith(self.prefix) or "/" in desktop_id or not is_ours(folder):
            return None
        try:
            supervision = await Supervision.open(folder, self.end_signal)
        except OSError:
            return None
        desktop = self.desktop(supervision, self.machine(folder), self.settings, self._pool.forget)
        try:
            await supervision.reached("listening")
            await desktop.open()
        except BaseException:
            await supervision.close()
            raise
        desktop.follow_start(desktop.follow())
        desktop.forget_keyboard()
        self._pool.in_use[desktop_id] = desktop
        return desktop

    async def reap(self, keep: frozenset[str]) -> list[str]:
        """End sandboxes of this server that no session holds."""
        listed = await asyncio.to_thread(lambda: list(self._parent.glob(f"{self.prefix}*")))
        used = keep | self._pool.ids() | self._starting  # read last: a folder that was listed is known by now
        left = [path for path in listed if path.name not in used and is_ours(path)]
        await asyncio.gather(*(end_sandbox(path, self.end_signal) for path in left))
        return [path.name for path in left]

    async def health(self) -> ProviderHealth:
        found = await examine(self.settings)
        if not found.up:
            return found
        return replace(found, summary=f"{ISOLATION[self.name]}, {self._pool}; {await describe(self.settings)}")

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        try:
            async with asyncio.timeout(10):
                kept = [self._pool.in_use[name] for name in keep & self._pool.in_use.keys()]
                await self._pool.stop(keep)
                for desktop in kept:
                    await desktop.supervision.close()
                await self.reap(keep)
        except TimeoutError:
            log.warning("some sandboxes had not ended when the server stopped; its next start removes them")
        if self._children and not keep:
            await asyncio.wait(list(self._children), timeout=1)
        for task, child in list(self._children.items()):
            task.cancel()
            child.detach()


class LocalDesktop(SandboxDesktop):
    """Without walls: the sandbox's programs as this server's user, gone with the server. It is NOT isolated."""

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
            hint = "Use the Docker desktop, or network: open."
            raise DesktopUnavailable("A local desktop cannot restrict the network.", hint=hint)
        if not (health := await self.health()).up:
            raise DesktopUnavailable(f"No local desktop: {health.summary}.", hint=health.fix)
        make_folder(folder, None)
        places = bubblewrap.Places(*(str(folder / name) for name in ("home", "desktop", "share", "run/rfb")))
        _prepare_home(folder, cookie := str(folder / "cookie"))
        told = bubblewrap.common(self.settings, places) | {"lease": self.lease}
        told["environment"] |= {"XAUTHORITY": cookie, "TMPDIR": f"{places.home}/tmp"}
        told["x"] = ["Xvnc", "-auth", cookie, *bubblewrap.x_server(options.size, places.rfb)]
        return Plan(bubblewrap.interpreter(sys.executable), told)

    def machine(self, folder: Path) -> SandboxMachine:
        return SandboxMachine(folder, home := str(folder / "home"), (home,), sys.executable)

    async def adopt(self, desktop_id: str, session_id: str) -> None:
        """Nothing to adopt: local desktops end with their server."""

    async def health(self) -> ProviderHealth:
        missing = [program for program in ("Xvnc", "openbox", "xterm", "xkbcomp") if shutil.which(program) is None]
        if missing:
            fix = "apt install tigervnc-standalone-server openbox xterm x11-xkb-utils"
            return ProviderHealth(self.name, False, f"missing: {', '.join(missing)}", fix)
        return ProviderHealth(self.name, True, f"{ISOLATION[self.name]}, {self._pool}")


def _prepare_home(folder: Path, cookie: str) -> None:
    """Make the home, and an Xauthority file for any host: else every user of this machine could open the display."""
    for name in ("home/tmp", "desktop"):
        (folder / name).mkdir(parents=True)
    parts = (b"", b"", b"MIT-MAGIC-COOKIE-1", secrets.token_bytes(16))
    Path(cookie).write_bytes(b"\xff\xff" + b"".join(struct.pack(">H", len(part)) + part for part in parts))
