"""Whether this machine can make sandboxes: the programs are there, and a trial passes.

``python -m cambio_lab.desktop.sandbox.probe`` says it in a line, and by its exit status, to ``scripts/run``.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from cambio_lab.settings import Settings

from ..provider import ISOLATION, ProviderHealth
from .bubblewrap import has_program
from .limits import find_limits, try_program
from .network import describe_open
from .rootfs import describe_root, find_root

PROGRAMS = ("Xvnc", "openbox", "xterm", "xkbcomp", "/usr/bin/python3")
"""Of the system that sandboxes run."""
INSTALL = "apt install bubblewrap tigervnc-standalone-server openbox xterm x11-xkb-utils python3 slirp4netns nftables"
# The namespaces of a sandbox, its own /proc, and the second user namespace that takes the powers away.
_TRIAL = (
    *("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
    *("--unshare-uts", "--cap-add", "ALL", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
    *("unshare", "--user", "--map-user=1000", "true"),
)
_found: ProviderHealth | None = None


async def examine(settings: Settings) -> ProviderHealth:
    """Try once; a success is remembered."""
    global _found
    if _found is None or not _found.up:
        _found = await _examine(find_root(settings))
    return _found


async def describe(settings: Settings) -> str:
    """What sandboxes are made of here, for health and doctor."""
    root = find_root(settings)
    return f"{describe_root(root)}; network open: {describe_open(root)}; limits: {await find_limits()}"


async def _examine(root: Path) -> ProviderHealth:
    missing = [] if shutil.which("bwrap") else ["bwrap"]
    missing += [name for name in PROGRAMS if not has_program(root, name)]
    if missing:
        return ProviderHealth("sandbox", False, f"missing: {', '.join(missing)}", INSTALL)
    code, _, said = await try_program(*_TRIAL, environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"})
    if code is None:
        return ProviderHealth("sandbox", False, "bubblewrap does not end", INSTALL)
    if code == 0:
        return ProviderHealth("sandbox", True, f"{ISOLATION['sandbox']}: bubblewrap works")
    reason = (said.strip().splitlines() or ["it says nothing"])[-1]
    return ProviderHealth(
        "sandbox",
        False,
        f"this machine lets no user make namespaces ({reason[:200]})",
        "See docs/sandbox.md: user namespaces may be switched off by a sysctl, AppArmor or the container's profile.",
    )


if __name__ == "__main__":
    outcome = asyncio.run(examine(Settings()))
    print(outcome.summary, outcome.fix)
    sys.exit(0 if outcome.up else 1)
