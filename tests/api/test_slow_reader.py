"""A reader that takes nothing costs nothing, and one that takes everything loses nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.live_server import LiveServer

from .test_sockets import turn

ROOT = str(Path(__file__).resolve().parents[2])
EVENTS = 100_000


class FloodServer(LiveServer):
    def _command_line(self) -> list[str]:
        program, _, _, *rest = super()._command_line()
        return [program, "-m", "tests.api.flood", *rest]


@pytest.fixture
async def flood_server(tmp_path: Path) -> AsyncIterator[FloodServer]:
    server = FloodServer(data_dir=tmp_path, env={"PYTHONPATH": os.pathsep.join([ROOT, *sys.path])})
    await server.start()
    yield server
    await server.stop()


def deaf(server: LiveServer, session: str) -> socket.socket:
    """A connection that made the handshake and never reads again."""
    found = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET /ws/{session} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: token {server.token}\r\n"
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    found.sendall(request.encode())
    assert found.recv(12) == b"HTTP/1.1 101"
    return found


async def test_a_slow_reader_costs_nothing(flood_server: FloodServer) -> None:
    server = flood_server
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    async with server.client() as client, aiohttp.ClientSession(headers=server.headers) as sockets:
        ordinary = (await client.post("/sessions")).json()
        async with sockets.ws_connect(server.ws_url + ordinary["websocket_url"]) as socket_of_another:
            await socket_of_another.receive()
            await turn(socket_of_another)  # what is loaded and made on first use is there now
        session = (await client.post("/sessions", json={"name": f"flood {EVENTS}"})).json()["id"]
        before = process.memory_info().rss
        with deaf(server, session):
            peak = await follow(server, session, EVENTS, process)
            after = process.memory_info().rss
        more, most = (after - before) / 1e6, (peak - before) / 1e6
        print(f"{EVENTS} events past a deaf reader: {more:.1f} MB more, {most:.1f} MB at most")
        assert peak - before < 10e6


async def follow(server: LiveServer, session: str, events: int, process: psutil.Process) -> int:
    """Read all events, each once and in order; the most memory that ``process`` had meanwhile."""
    peak = 0
    async with (
        aiohttp.ClientSession(headers=server.headers) as client,
        client.ws_connect(f"{server.ws_url}/ws/{session}") as reader,
        asyncio.timeout(240),
    ):
        assert (await reader.receive_json())["sequence"] == 0
        for number in range(1, events + 1):
            message = json.loads((await reader.receive()).data)
            while message["type"] == "heartbeat":
                message = json.loads((await reader.receive()).data)
            assert message["sequence"] == number
            if number % 500 == 0:
                peak = max(peak, process.memory_info().rss)
    return peak
