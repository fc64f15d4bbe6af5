"""A server whose own network does not have the containers' ports: VNC goes through the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a network of its own there is no published port, and not even a loopback interface; the engine's socket is a file.
ISOLATED = ["unshare", "--net"]
PROGRAM = """
import asyncio, time, uuid
from cambio_lab.desktop import make_provider
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.docker.desktop import DockerDesktop
from cambio_lab.settings import Settings

async def main():
    name = f"test-{uuid.uuid4().hex[:8]}"
    provider = await make_provider(Settings(pool_size=0), server_id=name, kind="docker")
    began = time.perf_counter()
    desktop = await provider.acquire("test", DesktopOptions())
    assert (await desktop.screenshot()).width == 1280
    print(f"first screenshot after {time.perf_counter() - began:.2f} s")
    await desktop.key("ctrl+alt+t")
    for _ in range(100):
        _, found, _ = await desktop.execute(["sh", "-c", "pgrep -x xterm; xwininfo -root -tree | grep -c xterm"])
        if len(found.split()) > 1 and found.split()[-1] != b"0":
            break
        await asyncio.sleep(0.1)
    await desktop.type_text("echo typed >~/typed\\n")
    for _ in range(100):
        if any(entry.path == "typed" for entry in await desktop.list_files()):
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("nothing was typed")
    assert desktop.endpoint().unix_path
    again = await provider.acquire("test", DesktopOptions())
    assert (await again.screenshot()).width == 1280
    await provider.stop(keep=frozenset({again.desktop_id}))
    heir = await make_provider(Settings(pool_size=0), server_id=name, kind="docker")
    adopted = await heir.adopt(again.desktop_id, "test")
    assert (await adopted.screenshot()).width == 1280
    await heir.stop()
    import glob, tempfile
    assert not glob.glob(tempfile.gettempdir() + "/cambio-vnc-*"), "the sockets are gone"
    print("done")

asyncio.run(main())
"""


def run(arguments: list[str], tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"TMPDIR": str(tmp_path)} | environment
    return subprocess.run(
        [*ISOLATED, sys.executable, *arguments], capture_output=True, text=True, timeout=100, env=variables
    )


def test_a_desktop_works_where_its_port_cannot_be_reached(docker_host: str, tmp_path: Path) -> None:
    found = run(["-c", PROGRAM], tmp_path)
    print(found.stdout)
    assert found.returncode == 0 and found.stdout.endswith("done\n"), found.stderr[-3000:]


@pytest.mark.timeout(120)
def test_doctor_says_which_way_vnc_takes(docker_host: str, tmp_path: Path) -> None:
    options = {"CAMBIO_LAB_MODEL": "demo", "CAMBIO_LAB_DATA_DIR": str(tmp_path)}
    found = run(["-m", "cambio_lab.cli", "doctor"], tmp_path, **options)
    assert "[ok]  container      VNC through the engine" in found.stdout, found.stdout + found.stderr
    arguments = [sys.executable, "-m", "cambio_lab.cli", "doctor"]
    found = subprocess.run(arguments, capture_output=True, text=True, timeout=100, env=os.environ | options)
    assert "[ok]  container      VNC through its published port" in found.stdout, found.stdout + found.stderr
