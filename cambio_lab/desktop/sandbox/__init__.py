"""Programs of this machine that sandboxes need, started and kept; and what limits a sandbox.

Resources are limited by a control group that the user's systemd delegates (cgroup v2), else by rlimits and process 1.
Helper processes (bubblewrap, slirp4netns, the proxy) outlive the server. They are not asyncio's: it kills its children
when the event loop ends, and a kept sandbox must not lose its network then.

The system calls that a sandbox may not make are a list of refusals (``refused_calls.txt``): the desktop runs whatever
the host has installed, so an allow-list would break programs at random. Each entry is refused because it reaches past
the namespaces (kernel keyring, modules, clock, handles), makes kernel code reachable that containers of a Docker Engine
cannot reach either (BPF, io_uring, userfaultfd, new namespaces), looks into other processes (ptrace and its kin), or
takes memory that no limit counts (memfd). Calls newer than this table, and ``clone3``, whose flags a filter cannot
read, do not exist for the sandbox: libraries fall back.
"""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

RLIMITS = "rlimits; memory counted and enforced by process 1"
CONTROL_GROUP = "control group (memory, processes, processor)"
_CONTROLLERS = "/sys/fs/cgroup/cgroup.controllers"
_TRIAL_SECONDS = 5.0
_TRIAL = 'd=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); cat "$d/memory.max" "$d/pids.max" "$d/cpu.max"'
BUS = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
"""Where systemd-run finds the user's systemd."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_found: str | None = None


def scope(settings: Settings) -> list[str]:
    """The command that runs what follows it in a control group of its own; it ends with its last process."""
    limits = {
        "MemoryMax": settings.desktop_memory,
        "MemorySwapMax": 0,
        "TasksMax": settings.desktop_pids,
        "CPUQuota": f"{settings.desktop_cpus:.0%}",
    }
    properties = [f"--property={name}={value}" for name, value in limits.items()]
    return ["systemd-run", "--user", "--scope", "--quiet", "--collect", *properties, "--"]


async def find_limits() -> str:
    """Which of the two it is on this machine, in the words of health and doctor; tried once."""
    global _found
    if _found is None:
        _found = CONTROL_GROUP if await _delegated() else RLIMITS
    return _found


async def _delegated() -> bool:
    """Whether limits that are asked for are there in the group. A server that is root gives sandboxes other users."""
    if os.geteuid() == 0 or not os.access(_CONTROLLERS, os.R_OK) or shutil.which("systemd-run") is None:
        return False
    settings = Settings()
    _, said, _ = await try_program(*scope(settings), "sh", "-c", _TRIAL, environment=os.environ)
    return said.split()[:2] == [str(settings.desktop_memory), str(settings.desktop_pids)]


async def try_program(*argv: str, environment: Mapping[str, str]) -> tuple[int | None, str, str]:
    """Run a program of this machine: exit code, output and errors; the code is ``None`` when it does not end."""
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            out, errors = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        return None, "", ""
    return child.returncode, out.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


class Child:
    """A process in a session of its own, reaped when it ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._ended = asyncio.Event()
        self._pidfd = os.pidfd_open(process.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    async def start(
        cls, argv: Sequence[str], fds: Sequence[int], user: int | None, stdin: bytes = b"", *, heard: bool = False
    ) -> Child:
        """Start ``argv`` as ``user`` (``None``: this one) with ``fds`` open and ``stdin`` to read.

        ``heard`` keeps its standard error for :meth:`last_words`; only for what writes nothing while all is well.
        """
        starting = asyncio.create_task(asyncio.to_thread(_start, argv, fds, user, stdin, heard))
        try:
            return cls(await asyncio.shield(starting))
        except asyncio.CancelledError:  # the thread goes on: what it starts would have no owner
            await asyncio.wait([starting])
            if starting.exception() is None:
                await asyncio.to_thread(_end, starting.result())
            raise

    def _reap(self) -> None:
        self._process.wait()
        self._stop_watching()
        self._ended.set()

    def _stop_watching(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            if self._process.stderr is not None:
                self._process.stderr.close()

    async def last_words(self) -> str:
        """What a process that has just failed wrote to its standard error, last line."""
        assert self._process.stderr is not None
        said = await asyncio.to_thread(self._process.stderr.read, 4096)
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it ended at once"

    async def wait(self) -> None:
        """Until it has ended; others may wait too."""
        await self._ended.wait()

    def detach(self) -> None:
        """Let it live on after this process."""
        if not self._ended.is_set():
            self._stop_watching()
            self._process.returncode = 0  # else `Popen` warns that it was forgotten


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _start(
    argv: Sequence[str], fds: Sequence[int], user: int | None, stdin: bytes, heard: bool
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if heard else subprocess.DEVNULL,
        bufsize=0,
        pass_fds=fds,
        env={"PATH": _PATH, "LANG": "C.UTF-8"} | {name: os.environ[name] for name in BUS if name in os.environ},
        cwd="/",
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended; its last words say why
        process.stdin.write(stdin)
    process.stdin.close()
    return process


_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWTIME, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_UNKNOWN = ((435, 435), (319, 279))
"""``clone3`` and ``memfd_create``, answered with ``ENOSYS``: C libraries and browsers then use ``clone`` and files in
/dev/shm, which is limited."""
_NEWEST = 451
"""The first number that this table does not know (``cachestat``)."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; no packets, no virtual machine sockets, no kernel crypto."""


def _statement(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, yes: int, no: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


_REFUSED, _MISSING = (_statement(_RETURN, _ERRNO | error) for error in (errno.EPERM, errno.ENOSYS))


class _Machine(NamedTuple):
    audit: int
    column: int
    clone: int
    unshare: int
    ioctl: int
    socket: int
    personality: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, 56, 272, 16, 41, 135),
    "aarch64": _Machine(0xC00000B7, 1, 220, 97, 29, 198, 92),
}


def build_filter() -> bytes:
    """Return the BPF program for ``PR_SET_SECCOMP``; :class:`DesktopUnavailable` for a machine without a table."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise DesktopUnavailable(
            f"There is no system call filter for {platform.machine()}.", hint="Use the Docker desktop."
        )
    column = machine.column
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_JEQ, machine.audit, 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER),
        # x32 calls (bit 30) and calls newer than the table
        _jump(_JGE, _NEWEST, 0, 1),
        _MISSING,
    ]
    for number in _refused_calls(column):
        program += [_jump(_JEQ, number, 0, 1), _REFUSED]
    for numbers in _UNKNOWN:
        program += [_jump(_JEQ, numbers[column], 0, 1), _MISSING]
    for number in (machine.clone, machine.unshare):
        program += _checked(number, 0, [_jump(_JSET, _NAMESPACES, 0, 1), _REFUSED])
    terminal = [part for value in (0x5412, 0x541C) for part in (_jump(_JEQ, value, 0, 1), _REFUSED)]
    program += _checked(machine.ioctl, 1, terminal)  # TIOCSTI, TIOCLINUX
    program += _only_values(machine.socket, _FAMILIES)
    program += _only_values(machine.personality, (0, 0x40000, 0xFFFFFFFF))  # ADDR_NO_RANDOMIZE: debuggers
    program.append(_statement(_RETURN, _ALLOW))
    return b"".join(program)


def _refused_calls(column: int) -> list[int]:
    """The numbers in ``refused_calls.txt``: column 0 for x86-64, 1 for 64-bit ARM."""
    lines = Path(__file__).with_name("refused_calls.txt").read_text("ascii").splitlines()
    found = [line.split()[1 + column] for line in lines if not line.startswith("#")]
    return [int(number) for number in found if number != "-"]


def _checked(number: int, index: int, checks: list[bytes]) -> list[bytes]:
    """What is done for one call alone: ``checks`` of the low half of its argument ``index``."""
    body = [_statement(_LOAD, _ARGUMENTS + 8 * index), *checks, _statement(_LOAD, _NUMBER)]
    return [_jump(_JEQ, number, 0, len(body)), *body]


def _only_values(number: int, allowed: tuple[int, ...]) -> list[bytes]:
    """Refuse the call unless its first argument is in ``allowed``."""
    checks = [_jump(_JEQ, value, len(allowed) - place, 0) for place, value in enumerate(allowed)]
    return _checked(number, 0, [*checks, _REFUSED])
