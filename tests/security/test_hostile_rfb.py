"""A program of the desktop that answers on Xvnc's port: only its own session is lost."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from cambio_lab.desktop.base import VncEndpoint
from cambio_lab.desktop.rfb import client as rfb_client
from cambio_lab.desktop.rfb import reader as rfb_reader
from cambio_lab.desktop.rfb.client import Connection, RfbClient
from cambio_lab.errors import DesktopLost

from .hostile_rfb import ATTACKS

SCRIPT = Path(__file__).with_name("hostile_rfb.py")


@asynccontextmanager
async def hostile(path: Path, attack: str) -> AsyncIterator[VncEndpoint]:
    process = await asyncio.create_subprocess_exec(sys.executable, str(SCRIPT), str(path), attack)
    try:
        async with asyncio.timeout(20):
            while not path.exists():  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.02)
        yield VncEndpoint(unix_path=str(path))
    finally:
        process.kill()
        await process.wait()


async def measure_lag(lags: list[float]) -> None:
    """Note how late a callback of another client runs, in seconds."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.002
        await asyncio.sleep(0.002)
        lags.append(loop.time() - due)


async def always() -> bool:
    return True


async def cause() -> str:
    return "The desktop stopped."


@pytest.mark.timing
@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_costs_only_its_own_session(
    attack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rfb_reader, "MESSAGE_SECONDS", 2.0)
    caplog.set_level(logging.INFO, "cambio_lab")
    async with hostile(tmp_path / "rfb", attack) as endpoint:
        lags: list[float] = []
        measuring = asyncio.create_task(measure_lag(lags))
        before = psutil.Process().memory_info().rss
        connection = Connection(endpoint, always, cause, quiet=0.08, cap=2.0)
        lost = ""
        try:
            async with asyncio.timeout(60):
                await connection.open()
                lost = await connection.lost()
        except DesktopLost as error:
            lost = str(error)
        grown = psutil.Process().memory_info().rss - before
        await asyncio.wait_for(connection.close(), 5)
        measuring.cancel()
        p99 = sorted(lags)[int(len(lags) * 0.99)]
        print(f"{attack:24} p99 {p99 * 1000:.1f} ms, {grown / 1e6:+.0f} MB, {len(caplog.records)} log lines: {lost}")
        assert "VNC server" in lost, "the reason is what the server did: the desktop itself lives"
        assert p99 <= 0.020
        assert grown <= 32 << 20
        assert len(caplog.records) <= 100


async def test_a_handshake_that_never_ends_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rfb_client, "CONNECT_SECONDS", 1.0)
    async with hostile(tmp_path / "rfb", "endless_handshake") as endpoint:
        with pytest.raises(DesktopLost, match="handshake"):
            await RfbClient.connect(endpoint, lambda damage: None)
