"""The three documented windows, their headers, and Redis: shared by two servers, then killed."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio

from tests.live_server import LiveServer, free_port

from .conftest import check_envelope, eventually

Start = Callable[..., Any]


def rates(**given: str) -> dict[str, str]:
    """Environment with the documented limits, changed where ``given`` says so."""
    documented = {"general": "100/minute", "create": "10/minute", "websocket": "5/minute"}
    return {f"CAMBIO_LAB_RATE_{name.upper()}": value for name, value in {**documented, **given}.items()}


async def test_the_101st_request_of_a_minute_is_refused(start_server: Start) -> None:
    server: LiveServer = await start_server(limits=True)
    async with server.client() as client:
        for number in range(1, 101):
            response = await client.get("/sessions")
            assert response.status_code == 200
            assert response.headers["x-ratelimit-limit"] == "100"
            assert int(response.headers["x-ratelimit-remaining"]) == 100 - number
        refused = await client.get("/sessions")
        check_envelope(refused, 429)
        assert refused.headers["x-ratelimit-remaining"] == "0"
        reset, retry = int(refused.headers["x-ratelimit-reset"]), int(refused.headers["retry-after"])
        assert 0 < retry <= 60 and abs(reset - time.time() - retry) < 2.5
        assert (await client.get("/health")).status_code == 200  # never limited
        elsewhere = await client.get("/sessions", headers={"X-Forwarded-For": "198.51.100.7"})
        assert elsewhere.status_code == 429  # not behind a proxy that we were told to trust


async def test_the_11th_creation_and_the_6th_socket_are_refused(start_server: Start) -> None:
    server: LiveServer = await start_server(limits=True)
    async with server.client() as client, aiohttp.ClientSession(headers=server.headers) as sockets:
        for number in range(10):
            created = await client.post("/sessions", json={})
            assert created.status_code == 200
            assert created.headers["x-ratelimit-limit"] == "10"
            assert created.headers["x-ratelimit-remaining"] == str(9 - number)
            if number < 9:
                await client.delete(f"/sessions/{created.json()['id']}")
        check_envelope(await client.post("/sessions", json={}), 429)
        session = created.json()["id"]
        for _ in range(5):
            async with sockets.ws_connect(f"{server.ws_url}/ws/{session}") as socket:
                assert (await socket.receive_json())["type"] == "status"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await sockets.ws_connect(f"{server.ws_url}/ws/{session}")
        assert refusal.value.status == 429
        assert refusal.value.headers is not None and 0 < int(refusal.value.headers["Retry-After"]) <= 60
        async with sockets.ws_connect(f"{server.ws_url}/vnc/{session}") as desktop:  # general, not /ws
            assert await desktop.receive_bytes() == b"RFB 003.008\n"


async def test_a_trusted_proxy_says_who_calls(start_server: Start) -> None:
    server: LiveServer = await start_server(
        "--ServerApp.trust_xheaders=True", limits=True, env=rates(general="3/minute")
    )
    async with server.client() as client:
        for address in ("198.51.100.7", "198.51.100.8"):
            statuses = [
                (await client.get("/sessions", headers={"X-Forwarded-For": address})).status_code for _ in range(4)
            ]
            assert statuses == [200, 200, 200, 429]


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A real Redis of our own: its address and its process."""
    program, port = shutil.which("redis-server"), free_port()
    assert program is not None, "redis-server is not installed"
    process = await asyncio.create_subprocess_exec(
        *(program, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(tmp_path)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    client = redis.asyncio.Redis(port=port)

    async def answers() -> bool:
        try:
            return bool(await client.ping())
        except redis.exceptions.ConnectionError:
            return False

    await eventually(answers)
    await client.aclose()
    yield f"redis://127.0.0.1:{port}/0", process
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.mark.timing
async def test_two_servers_share_one_redis_and_outlive_it(
    start_server: Start, redis_server: tuple[str, asyncio.subprocess.Process]
) -> None:
    url, process = redis_server
    env = {**rates(general="20/minute"), "CAMBIO_LAB_REDIS_URL": url}
    one: LiveServer = await start_server(limits=True, env=env)
    two: LiveServer = await start_server(limits=True, env=env)
    async with one.client() as first, two.client() as second:
        assert (await first.get("/health")).json()["services"]["redis"] == "up"
        for number in range(20):
            response = await (first if number % 2 else second).get("/sessions")
            assert response.status_code == 200
            assert int(response.headers["x-ratelimit-remaining"]) == 19 - number
        check_envelope(await first.get("/sessions"), 429)
        check_envelope(await second.get("/sessions"), 429)

        process.kill()
        await process.wait()
        started = time.monotonic()
        response = await first.get("/sessions")
        assert response.status_code == 200  # counted in memory from here on
        assert time.monotonic() - started < 2.0
        assert response.headers["x-ratelimit-limit"] == "20"

        async def said() -> bool:
            health = await first.get("/health")
            assert health.status_code == 200
            body = health.json()
            return bool(body["status"] == "degraded" and body["services"]["redis"] == "down")

        await eventually(said)
        assert "Redis failed" in one.log()
        metrics = (await first.get("/metrics")).text
        failures = [line for line in metrics.splitlines() if line.startswith("cambio_lab_redis_failures_total")]
        assert float(failures[0].split()[1]) >= 1
