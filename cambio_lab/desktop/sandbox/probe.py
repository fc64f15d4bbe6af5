"""Whether this machine can make sandboxes: the programs are there, and a trial passes.

``python -m cambio_lab.desktop.sandbox.probe`` says it in a line, and by its exit status, to ``scripts/run``.
"""

from __future__ import annotations

import asyncio
import shutil
import sys

from ..provider import ProviderHealth

PROGRAMS = ("bwrap", "Xvnc", "openbox", "xterm", "xkbcomp")
INSTALL = "apt install bubblewrap tigervnc-standalone-server openbox xterm x11-xkb-utils python3 slirp4netns nftables"
_TRIAL_SECONDS = 5.0
_PYTHON = "/usr/bin/python3"
# The namespaces of a sandbox, its own /proc, and the second user namespace that takes the powers away.
_TRIAL = (
    *("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
    *("--unshare-uts", "--cap-add", "ALL", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
    *("unshare", "--user", "--map-user=1000", "true"),
)
_found: ProviderHealth | None = None


async def examine() -> ProviderHealth:
    """Try once; a success is remembered."""
    global _found
    if _found is None or not _found.up:
        _found = await _examine()
    return _found


async def _examine() -> ProviderHealth:
    missing = [name for name in (*PROGRAMS, _PYTHON) if shutil.which(name) is None]
    if missing:
        return ProviderHealth("sandbox", False, f"missing: {', '.join(missing)}", INSTALL)
    child = await asyncio.create_subprocess_exec(
        *_TRIAL,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            _, said = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        return ProviderHealth("sandbox", False, "bubblewrap does not end", INSTALL)
    if child.returncode == 0:
        return ProviderHealth("sandbox", True, "sandbox (isolated): bubblewrap works")
    reason = (said.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"])[-1]
    return ProviderHealth(
        "sandbox",
        False,
        f"this machine lets no user make namespaces ({reason[:200]})",
        "See docs/sandbox.md: user namespaces may be switched off by a sysctl, AppArmor or the container's profile.",
    )


if __name__ == "__main__":
    outcome = asyncio.run(examine())
    print(outcome.summary, outcome.fix)
    sys.exit(0 if outcome.up else 1)
