"""Screens that a program inside makes too large, and attempts to reconnect that fail in unforeseen ways."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cambio_lab.desktop.base import Size, VncEndpoint
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.rfb import EXTENDED_SIZE
from cambio_lab.desktop.rfb import client as rfb_client
from cambio_lab.desktop.rfb.client import RfbClient
from cambio_lab.desktop.rfb.reader import is_acceptable
from cambio_lab.errors import DesktopLost

SMALL, HUGE = Size(640, 480), Size(8192, 8192)


class Server:
    """An RFB server that greets with ``size`` and then sends and receives what a test says."""

    def __init__(self, path: Path) -> None:
        self.size = SMALL
        self.endpoint = VncEndpoint(unix_path=str(path))
        self.viewer: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"RFB 003.008\n\x01\x01")
        await reader.readexactly(13)
        writer.write(bytes(4))
        await reader.readexactly(1)
        writer.write(struct.pack(">HH16xI", *self.size, 4) + b"name")
        if not self.viewer.done():
            self.viewer.set_result((reader, writer))

    async def say_size(self, size: Size) -> None:
        _, writer = await self.viewer
        writer.write(struct.pack(">BxH4HiB3x", 0, 1, 0, 0, *size, EXTENDED_SIZE, 1) + struct.pack(">I12x", 7))

    async def asked_size(self) -> Size:
        """What the next SetDesktopSize asks for."""
        reader, _ = await self.viewer
        message = await reader.readuntil(struct.pack(">I4xHHI", 7, *SMALL, 0))
        return Size(*struct.unpack_from(">HH", message, len(message) - 22))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    found = Server(tmp_path / "rfb")
    listening = await asyncio.start_unix_server(found.greet, found.endpoint.unix_path)
    yield found
    (await found.viewer)[1].close()
    listening.close()
    await asyncio.sleep(0)


def test_sizes_that_are_held() -> None:
    assert all(map(is_acceptable, (Size(7680, 4320), Size(4320, 7680), Size(4096, 4096), Size(1, 1))))
    assert not any(map(is_acceptable, (HUGE, Size(7681, 4320), Size(8193, 1), Size(0, 480), Size(65535, 65535))))


async def test_a_screen_that_becomes_too_large_is_set_back(server: Server) -> None:
    updated = asyncio.Event()
    client = await RfbClient.connect(server.endpoint, lambda damage: updated.set())
    await server.say_size(HUGE)
    async with asyncio.timeout(5):
        assert await server.asked_size() == SMALL
        await updated.wait()
    assert (client.usable, client.screen.size) == (True, SMALL)
    await client.close()


async def test_a_screen_that_is_too_large_is_refused(server: Server) -> None:
    server.size = HUGE
    with pytest.raises(DesktopLost, match="8192x8192 pixels is larger"):
        await RfbClient.connect(server.endpoint, lambda damage: None)


async def test_a_program_cannot_inflate_the_screenshots(docker_desktop: ConnectedDesktop) -> None:
    before = (await docker_desktop.screenshot()).width
    code, _, said = await docker_desktop.execute(["xrandr", "--fb", str(HUGE)])
    assert code == 0, said
    assert max(docker_desktop._connection.screen.size) < 8192
    async with asyncio.timeout(10):
        while b"current 1280 x 800" not in (await docker_desktop.execute(["xrandr"]))[1]:
            assert (await docker_desktop.screenshot()).width == before
    assert (await docker_desktop.screenshot()).width == before
    assert docker_desktop._connection.reconnects == 0


async def test_any_failure_to_reconnect_is_one_failed_try(
    local_desktop: ConnectedDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, tries = local_desktop._connection, 0
    connect = RfbClient.connect

    async def clumsy(*arguments: object, **named: object) -> RfbClient:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise MemoryError("no room for this screen")
        return await connect(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(RfbClient, "connect", clumsy)
    assert connection._client is not None
    connection._client._stream.close()
    async with asyncio.timeout(5):
        assert (await local_desktop.screenshot()).width == 1280
    assert (tries, connection.reconnects) == (3, 1)


async def test_a_server_that_stops_sending_is_connected_to_again(
    local_desktop: ConnectedDesktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rfb_client, "_STILL", 0.3)
    monkeypatch.setattr(rfb_client, "_ANSWER", 0.5)
    client = local_desktop._connection._client
    assert client is not None
    stream, write = client._stream, client._stream.write
    monkeypatch.setattr(stream, "write", lambda data: None if data[:1] == b"\x03" else write(data))
    for colour in ("red", "blue"):  # the first is the answer to what was requested before
        await local_desktop.execute(["sh", "-c", f"xterm -bg {colour} -geometry 60x20+0+0 >/dev/null 2>&1 &"])
        await asyncio.sleep(2)
    await local_desktop.screenshot()
    assert (local_desktop.frame()[..., :3] == (255, 0, 0)).all(-1).sum() > 10_000, "blue"
    assert local_desktop._connection.reconnects == 1
    await asyncio.sleep(0.6)
    await local_desktop.screenshot()  # this one answers
    assert local_desktop._connection.reconnects == 1
