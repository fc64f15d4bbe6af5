"""Clients that connect and then read or say nothing, in every state of a connection: bounded in memory and in time."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import docker
import pytest

from tests.live_server import LiveServer

from .measure import cost, loaded
from .test_connections import descriptors, many_descriptors  # noqa: F401  (a fixture)
from .test_xvnc import VIDEO

SAYS = {
    "nothing": b"",
    "its version": b"RFB 003.008\n",
    "its security type": b"RFB 003.008\n\1",
    "ClientInit": b"RFB 003.008\n\1\1",
    "one request": b"RFB 003.008\n\1\1" + struct.pack(">BB4H", 3, 0, 0, 0, 1280, 800),
    "requests without end": b"RFB 003.008\n\1\1" + struct.pack(">BB4H", 3, 0, 0, 0, 1280, 800) * 2000,
    "continuous updates": b"RFB 003.008\n\1\1"
    + struct.pack(">BxH2i", 2, 2, 0, -313)
    + struct.pack(">BB4H", 3, 0, 0, 0, 1280, 800) * 2
    + struct.pack(">BB4H", 150, 1, 0, 0, 1280, 800),
}
VIEWERS = 4


async def silent(server: LiveServer, path: str, says: bytes = b"", *, upgrade: bool = True) -> socket.socket:
    """A client that sends a request and ``says``, and never reads the answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: token {server.token}\r\n"
    if not upgrade:
        head += "Connection: close\r\n"
    else:
        head += (
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        )
    await loop.sock_sendall(client, head.encode() + b"\r\n")
    if upgrade:
        status = await loop.sock_recv(client, 12)
        assert status in (b"HTTP/1.1 101", b"HTTP/1.1 503")
        if status.endswith(b"503"):  # an HTTP connection, which may stay for the next request
            client.close()
            return client
    for start in range(0, len(says), 20_000):
        piece = says[start : start + 20_000]
        length = bytes([0x80 | len(piece)]) if len(piece) < 126 else struct.pack(">BH", 0x80 | 126, len(piece))
        await loop.sock_sendall(client, b"\x82" + length + bytes(4) + piece)
    return client


@asynccontextmanager
async def session(server: LiveServer, docker_host: str) -> AsyncIterator[dict[str, Any]]:
    """A session whose desktop shows noise as fast as it can."""
    async with server.client() as client:
        made = (await client.post("/sessions", json={})).raise_for_status().json()
        (await client.put(f"/sessions/{made['id']}/files/video.py", content=VIDEO.encode())).raise_for_status()
        engine = docker.APIClient(base_url=docker_host)
        command = ["sh", "-c", "cd; DISPLAY=:1 setsid python3 video.py >video.log 2>&1 </dev/null &"]
        started = engine.exec_create(made["container_id"], command)["Id"]
        await asyncio.to_thread(engine.exec_start, started)
        engine.close()
        yield made
        await client.delete(f"/sessions/{made['id']}")


@pytest.mark.timing
async def test_a_silent_viewer_costs_little_in_every_state(start_server: Callable[..., Any], docker_host: str) -> None:
    server: LiveServer = await start_server(desktop="docker", env={"CAMBIO_LAB_POOL_SIZE": "0"})
    async with session(server, docker_host) as made:
        for state, says in SAYS.items():
            async with cost(server) as found:
                viewers = [await silent(server, f"/vnc/{made['id']}", says) for _ in range(VIEWERS)]
                await asyncio.sleep(0.8)  # how long it is watched
            for viewer in viewers:
                viewer.close()
            print(f"{state:22} {found}")
            assert found.memory <= VIEWERS * 16 << 20, state
            assert found.percentile(0.99) <= 20, state
        assert "Traceback" not in server.log()


CLIENTS = 512


async def until_closed(server: LiveServer, before: int, most: float) -> float:
    """Wait until the server holds no more descriptors than ``before``; return how many seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(most):
        while descriptors(server) > before:  # noqa: ASYNC110 - the server tells no one
            await asyncio.sleep(0.2)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nothing", "a request", "events", "all events", "viewers"])
async def test_512_clients_that_never_read_are_closed_and_an_honest_one_is_served(
    kind: str,
    start_server: Callable[..., Any],
    many_descriptors: None,  # noqa: F811
) -> None:
    server: LiveServer = await start_server(env={"CAMBIO_LAB_HEARTBEAT": "3"})
    async with server.client() as honest:
        made = (await honest.post("/sessions", json={})).raise_for_status().json()
        (await honest.put(f"/sessions/{made['id']}/files/large", content=bytes(8 << 20))).raise_for_status()
        path = {
            "a request": f"/sessions/{made['id']}/files/large",
            "events": f"/ws/{made['id']}?stream=true",
            "all events": "/ws?stream=true",
            "viewers": f"/vnc/{made['id']}",
        }.get(kind, "")
        await loaded(server)
        async with cost(server) as found:
            before, clients = descriptors(server) + 4, []  # the threads' and the pool's own come and go
            for _ in range(CLIENTS):
                if kind == "nothing":
                    clients.append(socket.create_connection(("127.0.0.1", server.port)))
                else:
                    clients.append(await silent(server, path, upgrade=kind != "a request"))
            assert (await honest.post(f"/sessions/{made['id']}/stop")).status_code < 500
            took = await until_closed(server, before, 100)
            assert (await honest.get(f"/sessions/{made['id']}")).status_code == 200
        for client in clients:
            client.close()
        print(f"{kind:12} closed after {took:.1f} s; {found}")
        assert found.percentile(0.99) <= 50
        assert found.memory <= 64 << 20
        assert "Traceback" not in server.log()
