"""A creation whose client left is undone: no session, no desktop and no place among the desktops is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.live_server import LiveServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LiveServer]:
    """Local desktops, none kept ready, two at most."""
    found = LiveServer(
        data_dir=tmp_path, env={"CAMBIO_LAB_POOL_SIZE": "0", "CAMBIO_LAB_MAX_DESKTOPS": "2"}, desktop="local"
    )
    await found.start()
    yield found
    await found.stop()


async def post_and_leave(server: LiveServer, delay: float, config: dict[str, Any]) -> None:
    """Send ``POST /sessions`` and close the connection after ``delay`` seconds."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps({"config": config}).encode()
    head = f"POST /sessions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: token {server.token}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    await asyncio.sleep(delay)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def active(server: LiveServer) -> int:
    async with server.client() as client:
        answer = (await client.get("/sessions", params={"status": "active"})).json()
    return int(answer["total"])


async def check_capacity(server: LiveServer) -> None:
    """No session is left within three seconds, and both places can be used."""
    async with asyncio.timeout(10):
        await asyncio.sleep(1)  # a session that is still being created would appear now
        while await active(server):  # noqa: ASYNC110 - the server tells no one
            await asyncio.sleep(0.1)
    async with server.client() as client:
        made = [await client.post("/sessions", json={}) for _ in range(2)]
        assert [one.status_code for one in made] == [200, 200], [one.text for one in made]
        for one in made:
            await client.delete(f"/sessions/{one.json()['id']}")


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15])
async def test_creations_whose_clients_left_take_no_desktop(server: LiveServer, delay: float) -> None:
    await asyncio.gather(*[post_and_leave(server, delay, {}) for _ in range(2)])
    await check_capacity(server)
    assert "Traceback" not in server.log()


async def test_a_fork_whose_client_left_is_undone(server: LiveServer, tmp_path: Path) -> None:
    async with server.client() as client:
        first = (await client.post("/sessions", json={})).json()
        await client.delete(f"/sessions/{first['id']}")
    fork = {"fork": {"run": first["id"], "step": 0}}
    await asyncio.gather(*[post_and_leave(server, 0.05, fork) for _ in range(2)])
    await check_capacity(server)
    assert "Traceback" not in server.log()
