"""The memory limit of a sandbox without a control group: counted several times a second, enforced by killing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress


def processes() -> list[int]:
    """Every process that can be seen but this one: those of the sandbox, or of the machine where there are no walls."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def descendants(ancestor: int) -> list[int]:
    """The living children of ``ancestor``, and theirs."""
    children: dict[int, list[int]] = {}
    for pid in processes():
        with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state not in b"ZX":
                children.setdefault(int(parent), []).append(pid)
    found = children.get(ancestor, [])
    for pid in found:  # it grows meanwhile
        found += children.get(pid, [])
    return found


def limit_memory(limit: int, folders: Iterable[str], x_status: int) -> bool:
    """Kill the largest programs while all together hold more than ``limit`` bytes; folders in memory count, too.

    So does the X server, whose status ``x_status`` is: what it holds, it holds for programs.
    Returns whether more than half of the limit is held: then it is time to look more often.
    """
    held = _segments() + _sum(os.pread(x_status, 1 << 14, 0).splitlines(), (b"RssAnon:",))
    for path in folders:
        found = os.statvfs(path)
        held += (found.f_blocks - found.f_bfree) * found.f_frsize
    sizes = {pid: _bytes(pid, "status", (b"RssAnon:", b"RssShmem:")) for pid in processes()}
    total = held + sum(sizes.values())
    if total <= limit:
        return total > limit / 2
    # Memory that processes share was counted for each of them: ask for the proportional sizes, which takes longer.
    exact = {pid: _bytes(pid, "smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) for pid in sizes}
    excess = held + sum(exact.values()) - limit
    for pid in sorted(exact, key=lambda pid: exact[pid], reverse=True):
        if excess <= 0:
            break
        excess -= exact[pid]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


def _bytes(pid: int, name: str, fields: tuple[bytes, ...]) -> int:
    """The sum of the lines of a file of /proc that begin with one of ``fields``."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return _sum(file, fields)
    except (OSError, ValueError, IndexError):
        return 0  # it ended meanwhile


def _sum(lines: Iterable[bytes], fields: tuple[bytes, ...]) -> int:
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(fields))


def _segments() -> int:
    """Memory of System V segments, which no process need have attached."""
    with open("/proc/sysvipc/shm") as file:
        return sum(int(line.split()[14]) for line in file.readlines()[1:])
