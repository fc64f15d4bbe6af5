"""A whole server process meets odd neighbours: a second server, clients that vanish, a damaged database."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live_server import LiveServer

from .engine_proxy import EngineProxy
from .observer import containers_of, create, observing


async def vanish(server: LiveServer, session_id: str) -> None:
    """Upgrade to a WebSocket, send half a frame, reset the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws/{session_id}?token={server.token} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x81\xfe\x04\x00" + os.urandom(4) + b"half of what was promised")
    await writer.drain()
    connection: Any = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close as a crash does
    writer.transport.abort()


async def test_neighbours(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """One server for all of it: starting it is what takes time."""
    server: LiveServer = await start_server(data_dir=tmp_path / "data", desktop="local")
    async with server.client() as client:
        session = await create(client)
        await clients_that_vanish_hurt_nobody(server, session["id"])
        await a_second_server_on_the_directory_refuses_and_says_who_has_it(server, start_server, tmp_path)
        assert (await client.delete(f"/sessions/{session['id']}")).status_code == 200
    await server.stop()
    nobody_else_can_read(server.data_dir / "cambio_lab")
    await a_damaged_database_is_set_aside_and_said(server, session["id"])


async def clients_that_vanish_hurt_nobody(server: LiveServer, session_id: str) -> None:
    async with observing(server, session_id) as observer:
        await observer.send({"content": "hello"})
        for _ in range(20):
            await vanish(server, session_id)
        answer = await observer.turn_end()
        assert answer["type"] == "agent_response"
    assert "Traceback" not in server.log()


async def a_second_server_on_the_directory_refuses_and_says_who_has_it(
    server: LiveServer, start_server: Callable[..., Any], tmp_path: Path
) -> None:
    assert server.process is not None
    second: LiveServer = await start_server(
        data_dir=tmp_path / "second", desktop="local", env={"CAMBIO_LAB_DATA_DIR": str(server.data_dir / "cambio_lab")}
    )
    async with second.client() as client:
        assert (await client.get("/health")).status_code == 503
        answer = await client.post("/sessions", json={})
    assert answer.status_code == 503
    assert f"process {server.process.pid}" in answer.text
    assert str(tmp_path) not in answer.text
    await second.stop()


def nobody_else_can_read(directory: Path) -> None:
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in directory.glob("cambio.db*")} == {0}


async def a_damaged_database_is_set_aside_and_said(server: LiveServer, session_id: str) -> None:
    database = server.data_dir / "cambio_lab" / "cambio.db"
    damage(database)
    await server.start()
    async with server.client() as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get(f"/sessions/{session_id}")).status_code == 404
        await client.delete(f"/sessions/{(await create(client))['id']}")
    assert "cambio.db.damaged-" in server.log()
    await server.stop()


def damage(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))


async def test_a_data_directory_is_had_as_soon_as_its_server_has_ended(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    first: LiveServer = await start_server(data_dir=tmp_path / "first", desktop="local")
    directory = {"CAMBIO_LAB_DATA_DIR": str(first.data_dir / "cambio_lab")}
    second: LiveServer = await start_server(data_dir=tmp_path / "second", desktop="local", env=directory)
    async with second.client() as client:
        assert (await client.post("/sessions", json={})).status_code == 503
        await first.stop()
        async with asyncio.timeout(15):
            while (await client.get("/health")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        session = await create(client)
        assert (await client.delete(f"/sessions/{session['id']}")).status_code == 200
    assert second.log().count("cannot serve sessions yet") == 1


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.docker
async def test_an_engine_that_answers_nothing_does_not_hold_up_the_end(
    start_server: Callable[..., Any], docker_host: str, tmp_path: Path
) -> None:
    proxy = EngineProxy(docker_host, tmp_path / "engine.sock")
    await proxy.start()
    environment = {"DOCKER_HOST": proxy.host, "CAMBIO_LAB_POOL_SIZE": "0"}
    server: LiveServer = await start_server(data_dir=tmp_path / "data", desktop="docker", env=environment)
    async with server.client() as client:
        await create(client)
    await proxy.become("silent")
    began = time.monotonic()
    await server.stop(30)
    seconds = time.monotonic() - began
    print(f"\nsilent engine: the server had ended after {seconds:.1f} s")
    await proxy.become("up")
    await proxy.stop()
    # What a silent engine kept, the next start removes.
    again: LiveServer = await start_server(
        data_dir=tmp_path / "data", desktop="docker", env={"CAMBIO_LAB_POOL_SIZE": "0"}
    )
    await again.stop()
    assert await containers_of(again, docker_host) == []
    assert seconds < 11
