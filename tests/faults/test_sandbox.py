"""A sandbox outlives its server and is adopted; one that nobody wants leaves no process, mount or file."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cambio_lab.desktop import sandbox as programs
from cambio_lab.desktop.base import Point
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.sandbox import provider as sandbox
from cambio_lab.desktop.sandbox.machine import SandboxMachine
from cambio_lab.desktop.sandbox.provider import SandboxProvider
from cambio_lab.errors import DesktopLost
from cambio_lab.settings import Settings
from tests.live_server import LiveServer

from .observer import create

ROUNDS = [3, pytest.param(50, marks=pytest.mark.slow)]


def parts_of(server: LiveServer) -> list[psutil.Process]:
    """Every process of the sandboxes that this server started: inside, and the helpers outside."""
    assert server.process is not None
    found: list[psutil.Process] = psutil.Process(server.process.pid).children(recursive=True)
    return found


def living(processes: list[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it ended while it was looked at
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.name())
    return found


def folders() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("cambio-sandbox-*")}


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


async def nothing_left(processes: list[psutil.Process], before: set[str]) -> None:
    """Wait until the processes have ended, then compare the folders."""
    async with asyncio.timeout(10):
        while living(processes):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    for name in folders() - before:
        assert name not in mounts()


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.timeout(3600)
async def test_a_sandbox_is_adopted_after_each_kill(
    start_server: Callable[..., Any], tmp_path: Path, rounds: int
) -> None:
    before = folders()
    server: LiveServer = await start_server(data_dir=tmp_path / "data", desktop="sandbox")
    async with server.client() as client:
        session = await create(client)
        path = f"/sessions/{session['id']}"
        await client.put(f"{path}/files/kept.txt", content=b"written before the first crash")
        health = (await client.get("/health")).json()["services"]
        assert health["desktop"] == "sandbox (isolated)"
        assert (await client.get(path)).json()["isolated"] is True
    parts = parts_of(server)
    mine = folders() - before
    for _ in range(rounds):
        await server.kill()
        server = await start_server(data_dir=tmp_path / "data", desktop="sandbox")
        async with server.client() as client:
            assert (await client.get(path)).json()["status"] == "active"
            found = await client.get(f"{path}/files/kept.txt")
            assert found.content == b"written before the first crash"
            assert (await client.get(f"{path}/screenshot")).status_code == 200
    assert living(parts)
    async with server.client() as client:
        assert (await client.delete(path)).status_code == 200
    await server.stop()
    await nothing_left(parts, before)
    assert not mine & folders()


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.timeout(1200)
async def test_a_kill_at_any_moment_of_a_start_leaves_nothing_after_the_next(rounds: int, tmp_path: Path) -> None:
    server_id = uuid.uuid4().hex
    for number in range(rounds):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.starting_sandbox", server_id), cwd=Path(__file__).parents[2]
        )
        await asyncio.sleep(0.4 + number % 20 / 20)
        parts = psutil.Process(child.pid).children(recursive=True)
        assert child.returncode is None
        child.kill()
        await child.wait()
        provider = SandboxProvider(Settings(), server_id=server_id)
        await provider.reap(frozenset())
        assert [path for path in folders() if path.startswith(provider.prefix)] == []
        await nothing_left(parts, folders())
        await provider.stop()


async def test_what_nobody_adopts_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SandboxProvider, "lease", 1.0)
    provider = SandboxProvider(Settings(), server_id=uuid.uuid4().hex)
    desktop = await provider.acquire("test", DesktopOptions(network="none"))
    begin = time.monotonic()
    await asyncio.sleep(2.5)
    assert await desktop.alive(), "a server watches it"
    await provider.stop(keep=frozenset({desktop.desktop_id}))
    later = SandboxProvider(Settings(), server_id=uuid.uuid4().hex)
    async with asyncio.timeout(10):
        while await asyncio.to_thread(_answers, desktop):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert time.monotonic() - begin > 2.5
    await later.stop()
    await provider.reap(frozenset())


def _answers(desktop: sandbox.SandboxDesktop) -> bool:
    import socket

    assert isinstance(desktop.machine, SandboxMachine)
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(desktop.machine.control_path) == 0


async def test_a_sandbox_that_ends_is_lost_with_the_reason() -> None:
    provider = SandboxProvider(replace(Settings()), server_id=uuid.uuid4().hex)
    desktop = await provider.acquire("test", DesktopOptions(network="none"))
    desktop.supervision.kill()
    assert await asyncio.wait_for(desktop.lost(), 10) == "The desktop's sandbox has ended."
    with pytest.raises(DesktopLost):
        await desktop.execute(["true"])
    await provider.stop()


async def test_a_helper_whose_start_is_cancelled_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that is stopped while its desktop starts: the process that a thread is just starting has no owner."""
    started: list[subprocess.Popen[bytes]] = []
    begun = threading.Event()
    real = programs._start

    def slow(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(real(*arguments))
        begun.set()
        time.sleep(0.2)
        return started[0]

    monkeypatch.setattr(programs, "_start", slow)
    starting = asyncio.create_task(programs.Child.start(["sleep", "60"], (), None))
    await asyncio.to_thread(begun.wait)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert started[0].returncode == -signal.SIGKILL


async def test_a_program_that_kills_all_it_can_leaves_the_desktop() -> None:
    provider = SandboxProvider(replace(Settings(), pool_size=0), server_id=uuid.uuid4().hex)
    desktop = await provider.acquire("test", DesktopOptions(network="none"))
    await desktop.execute(["python3", "-c", "import os; os.kill(-1, 9)"])
    await desktop.click("left", Point(600, 400))
    assert (await desktop.screenshot()).width == 1280
    assert (await desktop.execute(["echo", "here"]))[1] == b"here\n"
    assert await desktop.alive()
    await provider.stop()


async def test_the_end_of_the_x_server_ends_the_sandbox() -> None:
    before = set(psutil.Process().children(recursive=True))  # other tests' desktops, still ending
    provider = SandboxProvider(replace(Settings(), pool_size=0), server_id=uuid.uuid4().hex)
    try:
        desktop = await provider.acquire("test", DesktopOptions(network="none"))
        parts = [part for part in psutil.Process().children(recursive=True) if part not in before]
        (x_server,) = [part for part in parts if "vnc" in part.name().lower()]
        x_server.kill()
        assert await asyncio.wait_for(desktop.lost(), 30) == "The desktop's sandbox has ended."
        await nothing_left(parts, folders())
    finally:
        await provider.stop()
