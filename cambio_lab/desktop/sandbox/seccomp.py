"""The system calls that a sandbox may not make, as a BPF program for ``PR_SET_SECCOMP``.

A list of refusals (``refused_calls.txt``): the desktop runs whatever the host has installed, so an allow-list would
break programs at random.
Each entry is refused because it reaches past the namespaces (kernel keyring, modules, clock, handles), makes kernel
code reachable that containers of a Docker Engine cannot reach either (BPF, io_uring, userfaultfd, new namespaces),
looks into other processes (ptrace and its kin), or takes memory that no limit counts (memfd). Calls newer than this
table, and ``clone3``, whose flags a filter cannot read, do not exist for the sandbox: libraries fall back.
"""

from __future__ import annotations

import errno
import platform
import struct
from pathlib import Path
from typing import NamedTuple

from cambio_lab.errors import DesktopUnavailable

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
    """Return the program for this machine; :class:`DesktopUnavailable` for an architecture without a table."""
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
