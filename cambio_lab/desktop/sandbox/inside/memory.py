"""The memory limit of a sandbox without a control group: counted several times a second, enforced by killing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress


def processes() -> list[int]:
    """Every process of the sandbox but the first."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def limit_memory(limit: int, folders: Iterable[str], spared: int) -> bool:
    """Kill the largest programs while all together hold more than ``limit`` bytes; folders in memory count, too.

    Returns whether more than half of the limit is held: then it is time to look more often.
    """
    held = _segments()
    for path in folders:
        found = os.statvfs(path)
        held += (found.f_blocks - found.f_bfree) * found.f_frsize
    sizes = {pid: _bytes(pid, "status", (b"RssAnon:", b"RssShmem:")) for pid in processes()}
    total = held + sum(sizes.values())
    if total <= limit:
        return total > limit / 2
    # Memory that processes share was counted for each of them: ask for the proportional sizes, which takes longer.
    exact = {pid: _bytes(pid, "smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) for pid in sizes if pid != spared}
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
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(fields))
    except (OSError, ValueError, IndexError):
        return 0  # it ended meanwhile


def _segments() -> int:
    """Memory of System V segments, which no process need have attached."""
    with open("/proc/sysvipc/shm") as file:
        return sum(int(line.split()[14]) for line in file.readlines()[1:])
