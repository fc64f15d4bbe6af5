"""The system calls that a sandbox may not make, as a BPF program for ``PR_SET_SECCOMP``.

A list of refusals: the desktop runs whatever the host has installed, so an allow-list would break programs at random.
Each entry is refused because it reaches past the namespaces (kernel keyring, modules, clock, handles), makes kernel
code reachable that containers of a Docker Engine cannot reach either (BPF, io_uring, userfaultfd, new namespaces),
looks into other processes (ptrace and its kin), or takes memory that no limit counts (memfd). Calls newer than this
table, and ``clone3``, whose flags a filter cannot read, do not exist for the sandbox: libraries fall back.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import NamedTuple

from cambio_lab.errors import DesktopUnavailable

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWTIME, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

# name: number on x86-64, number on 64-bit ARM (None where the architecture has no such call)
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    # mounts and roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    # the kernel itself
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "lookup_dcookie": (212, 18),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "vhangup": (153, 58),
    "fanotify_init": (300, 262),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # memory beside the limits
    "memfd_secret": (447, 447),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "mlockall": (151, 230),
}
_MISSING: dict[str, tuple[int, int]] = {"clone3": (435, 435), "memfd_create": (319, 279)}
"""Answered with ``ENOSYS``: C libraries and browsers then use ``clone`` and files in /dev/shm, which is limited."""
_NEWEST = 451
"""The first number that this table does not know (``cachestat``)."""
_FAMILIES = (1, 2, 10, 16)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; no packets, no virtual machine sockets, no kernel crypto."""


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


def build_filter(name: str = "") -> bytes:
    """Return the program for this machine (or the one named as ``platform.machine()`` does).

    Raises :class:`~cambio_lab.errors.DesktopUnavailable` for an architecture without a table.
    """
    machine = _MACHINES.get(name or platform.machine())
    if machine is None:
        raise DesktopUnavailable(
            f"There is no system call filter for {name or platform.machine()}.", hint="Use the Docker desktop."
        )
    column = machine.column
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_JEQ, machine.audit, 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER),
        # x32 calls (bit 30) and calls newer than the table
        _jump(_JGE, _NEWEST, 0, 1),
        _statement(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for numbers in _REFUSED.values():
        program += _refuse(numbers[column], errno.EPERM)
    for numbers in _MISSING.values():
        program += _refuse(numbers[column], errno.ENOSYS)
    program += _with_flags(machine.clone, 0, _NAMESPACES)
    program += _with_flags(machine.unshare, 0, _NAMESPACES)
    program += _without_values(machine.ioctl, 1, (0x5412, 0x541C))  # TIOCSTI, TIOCLINUX
    program += _only_values(machine.socket, 0, _FAMILIES)
    program += _only_values(machine.personality, 0, (0, 0x40000, 0xFFFFFFFF))  # ADDR_NO_RANDOMIZE: debuggers
    program.append(_statement(_RETURN, _ALLOW))
    return b"".join(program)


def _statement(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, yes: int, no: int) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _refuse(number: int | None, error: int) -> list[bytes]:
    if number is None:
        return []
    return [_jump(_JEQ, number, 0, 1), _statement(_RETURN, _ERRNO | error)]


def _argument(index: int) -> bytes:
    return _statement(_LOAD, _ARGUMENTS + 8 * index)


def _with_flags(number: int, index: int, flags: int) -> list[bytes]:
    """Refuse the call if its argument ``index`` has one of ``flags``."""
    return [
        _jump(_JEQ, number, 0, 4),
        _argument(index),
        _jump(_JSET, flags, 0, 1),
        _statement(_RETURN, _ERRNO | errno.EPERM),
        _statement(_LOAD, _NUMBER),
    ]


def _without_values(number: int, index: int, refused: tuple[int, ...]) -> list[bytes]:
    """Refuse the call if the low half of its argument ``index`` is in ``refused``."""
    body = [_argument(index)]
    for value in refused:
        body += [_jump(_JEQ, value, 0, 1), _statement(_RETURN, _ERRNO | errno.EPERM)]
    return [_jump(_JEQ, number, 0, len(body) + 1), *body, _statement(_LOAD, _NUMBER)]


def _only_values(number: int, index: int, allowed: tuple[int, ...]) -> list[bytes]:
    """Refuse the call unless the low half of its argument ``index`` is in ``allowed``."""
    checks = [_jump(_JEQ, value, len(allowed) - place, 0) for place, value in enumerate(allowed)]
    body = [_argument(index), *checks, _statement(_RETURN, _ERRNO | errno.EPERM), _statement(_LOAD, _NUMBER)]
    return [_jump(_JEQ, number, 0, len(body)), *body]
