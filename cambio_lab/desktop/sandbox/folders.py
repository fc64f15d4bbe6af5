"""The folder of a sandbox in the temporary directory: its two sockets, and who owns them."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from .machine import Supervision

_END_TIMEOUT = 5.0
_USERS = range(61184, 65520)
"""Where a server that is root takes a user for each sandbox from: none of these has a name or files."""
_LONGEST_SOCKET_PATH = 107


async def end_sandbox(supervision: Supervision, folder: Path) -> None:
    """Kill every process of a sandbox and remove its folder."""
    supervision.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_TIMEOUT):
            await supervision.wait_until_ended()
    await supervision.close()
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def remove_folder(folder: Path, end_signal: int) -> None:
    """The same for a sandbox that may have ended already, or never began."""
    try:
        supervision = await Supervision.open(folder, end_signal)
    except OSError:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    else:
        await end_sandbox(supervision, folder)


def make_folder(folder: Path, user: int | None) -> None:
    """Make it, with the one in it that the X server's socket will be in, for ``user`` (``None``: this one)."""
    for path in (folder, folder / "run"):
        path.mkdir(mode=0o700)
        if user is not None:
            os.chown(path, user, user)


def is_ours(folder: Path) -> bool:
    """Whether a folder of the shared temporary directory was made by this user."""
    try:
        owner = folder.lstat().st_uid
    except OSError:
        return False
    return owner == os.geteuid() or (os.geteuid() == 0 and owner in _USERS)


def choose_user() -> int:
    """A user without name, files or processes for one sandbox of a server that is root."""
    return random.choice(_USERS)


def parent_folder(prefix: str) -> Path:
    """The temporary directory, or /tmp where socket paths would not fit or another user could not enter."""
    folder = Path(tempfile.gettempdir())
    longest = len(os.fsencode(f"{folder}/{prefix}12345678/control"))
    closed = os.geteuid() == 0 and any(not path.stat().st_mode & 0o001 for path in (folder, *folder.parents))
    return Path("/tmp") if longest > _LONGEST_SOCKET_PATH or closed else folder
