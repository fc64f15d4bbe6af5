"""The system that sandboxes run, and whether this machine can make them: programs are there, and a trial passes.

That system is this machine's own, or the files of the desktop's image in the cache: then sandboxes show the same
desktop as containers. ``cambio-lab image build --rootfs`` puts them there, from the image where a Docker Engine
answers, else with mmdebstrap, which needs no root. Sandboxes mount them read-only in place of this machine's own.

``python -m cambio_lab.desktop.sandbox.probe`` says in a line, and by its exit status, whether sandboxes can be made.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

from ..docker.containers import create, remove
from ..docker.engine import Engine
from ..docker.image import CONTEXT, SUITE, Report, build_image, context_digest, run_reported
from ..provider import ISOLATION, Progress, ProviderHealth
from . import find_limits, network, try_program
from .bubblewrap import has_program

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
    programs = "this machine" if root == HOST else "the desktop image"
    missing = network.missing_for_link(root)
    link = f"web only, through a proxy ({missing})" if missing else "user mode (slirp4netns)"
    return f"programs of {programs}; network open: {link}; limits: {await find_limits()}"


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


HOST = Path("/")
_LEFT_OUT = (
    *("boot", "dev", "home", "media", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp"),
    *("var/lib", "var/log"),
)

_PACKAGES = re.compile(r"--no-install-recommends([^&]+)&&")


def rootfs_folder() -> Path:
    """Where this version's files belong. A root server's sandboxes run as other users, who cannot enter root's home."""
    usual = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "cambio-lab" / f"rootfs-{context_digest()}"


def find_root(settings: Settings) -> Path:
    """The root whose programs sandboxes run: the unpacked image where it is there and wanted, else this machine's."""
    folder = rootfs_folder()
    return folder if settings.sandbox_rootfs and folder.is_dir() else HOST


async def build_rootfs(settings: Settings, report: Report, *, force: bool = False) -> Path:
    """Make sure that the files are there; their folder. :class:`DesktopUnavailable` says why they cannot be made."""
    folder = rootfs_folder()
    if await asyncio.to_thread(folder.is_dir) and not force:
        report(Progress(f"{folder} is already there", 1.0))
        return folder
    new = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    await asyncio.to_thread(new.mkdir, 0o755, parents=True)
    try:
        with closing(Engine()) as engine:
            if await engine.answers():
                await _export(engine, settings, new, report)
            else:
                await _bootstrap(new, report)
        # No file may be set-user-id, and a later version must be able to replace every folder.
        find = f"find {shlex.quote(str(new))} -xdev"
        clean = f"{find} -type f -perm /6000 -exec chmod a-s {{}} +"
        clean += f" && {find} -type d ! -perm -700 -exec chmod u+rwx {{}} +"
        await run_reported(clean, new, report, "unpacking")
        await asyncio.to_thread(_replace, folder, new)
    finally:
        await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)
    report(Progress(f"unpacked to {folder}", 1.0))
    return folder


def _replace(folder: Path, new: Path) -> None:
    old = new.with_suffix(".old")
    if folder.is_dir():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _tar(folder: Path) -> list[str]:
    left_out = [f"--exclude={start}{name}/*" for name in _LEFT_OUT for start in ("", "./")]
    return ["tar", "-x", "-p", "-f", "-", "-C", str(folder), "--no-same-owner", "--anchored", *left_out]


async def _export(engine: Engine, settings: Settings, folder: Path, report: Report) -> None:
    """Unpack a container of the image that is never started."""
    extension = Path(settings.dockerfile) if settings.dockerfile else None
    image = await build_image(engine, settings.image, report, dockerfile=extension)
    container = await create(engine, lambda client: {"image": image, "command": ["true"]})
    try:
        report(Progress(f"unpacking {image}"))
        pieces = iter(await engine.call(lambda client: client.export(container)))
        await _unpack(partial(engine.call, lambda _: next(pieces, b"")), folder)
    finally:
        await remove(engine, container)


async def _unpack(read: Callable[[], Awaitable[bytes]], folder: Path) -> None:
    tar = await asyncio.create_subprocess_exec(*_tar(folder), stdin=asyncio.subprocess.PIPE)
    assert tar.stdin is not None
    try:
        while piece := await read():
            tar.stdin.write(piece)
            await tar.stdin.drain()
        tar.stdin.close()
        code = await tar.wait()
    finally:
        if tar.returncode is None:
            tar.kill()
            await tar.wait()
    if code:
        raise DesktopUnavailable(f"The image cannot be unpacked to {folder}: tar ended with {code}.")


async def _bootstrap(folder: Path, report: Report) -> None:
    """Install the image's packages with mmdebstrap; an ordinary user needs a range in /etc/subuid for it."""
    if shutil.which("mmdebstrap") is None:
        raise DesktopUnavailable(
            "No Docker Engine answers, and mmdebstrap is not installed.", hint="apt install mmdebstrap uidmap"
        )
    make = [
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(packages())}"),
        *('--customize-hook=chroot "$1" fc-cache -f', SUITE, "-"),
    ]
    command = f"set -o pipefail; {shlex.join(make)} | {shlex.join(_tar(folder))}"
    await run_reported(command, folder, report, "mmdebstrap")


def packages() -> list[str]:
    """What the image's Dockerfile installs."""
    found = _PACKAGES.findall((CONTEXT / "Dockerfile").read_text("utf-8"))
    return [word for group in found for word in group.split() if word != "\\"]


if __name__ == "__main__":
    outcome = asyncio.run(examine(Settings()))
    print(outcome.summary, outcome.fix)
    sys.exit(0 if outcome.up else 1)
