"""What limits a sandbox: a control group that the user's systemd delegates (cgroup v2), else rlimits and process 1."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping

from cambio_lab.settings import Settings

RLIMITS = "rlimits; memory counted and enforced by process 1"
CONTROL_GROUP = "control group (memory, processes, processor)"
_CONTROLLERS = "/sys/fs/cgroup/cgroup.controllers"
_TRIAL_SECONDS = 5.0
_TRIAL = 'd=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); cat "$d/memory.max" "$d/pids.max" "$d/cpu.max"'
BUS = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
"""Where systemd-run finds the user's systemd."""
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
