"""A desktop whose password file is a trap costs a restarted server one bounded attempt for that session."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.docker.containers import XVNC, start_exec
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

TRAPS = {
    "fifo": "rm password; mkfifo password",
    "endless": "rm password; ln -s /dev/zero password",
    "empty": ": >password",
    "gone": "rm password",
}


@pytest.mark.timeout(180)
async def test_a_trap_delays_no_other_session(docker_host: str) -> None:
    server_id = f"test-{secrets.token_hex(4)}"
    first = await make_provider(Settings(pool_size=0), server_id=server_id, kind="docker")
    assert isinstance(first, DockerProvider)
    desktops = {name: (await first.acquire(name, DesktopOptions())).desktop_id for name in ("good", *TRAPS)}
    for name, trap in TRAPS.items():  # as the user of Xvnc: the desktop's own user cannot even see the file
        process = await start_exec(
            first._engine, desktops[name], ["sh", "-c", f"cd /run/xvnc && {trap} && echo done"], user=XVNC
        )
        assert await process.read() == (1, b"done\n")
        process.abandon()
    await first.stop(keep=frozenset(desktops.values()))

    second = await make_provider(Settings(pool_size=0), server_id=server_id, kind="docker")
    began = time.monotonic()
    took: dict[str, float] = {}

    async def adopt(name: str) -> object:
        try:
            return await second.adopt(desktops[name], name)
        except DesktopUnavailable as error:
            return error
        finally:
            took[name] = time.monotonic() - began

    found = dict(zip(desktops, await asyncio.gather(*map(adopt, desktops)), strict=True))
    print(took)
    assert (await found["good"].screenshot()).width == 1280  # type: ignore[attr-defined]
    assert found["gone"] is found["empty"] is None
    assert isinstance(found["fifo"], DesktopUnavailable)
    assert found["endless"] is not None, "eight zeros, which Xvnc reads from there as well"
    assert took["good"] < 3
    assert max(took.values()) < 14, "less than one attempt of the recovery"
    await second.reap(frozenset())
    await second.stop()
