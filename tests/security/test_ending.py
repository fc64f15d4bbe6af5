"""Every call that races with the end of its session is answered 404 or 409, never with a server error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from tests.live_server import LiveServer

GOOD = {200, 404, 409}


@pytest.fixture(params=["local", "docker"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LiveServer]:
    found = LiveServer(data_dir=tmp_path, desktop=request.param)
    await found.start()
    yield found
    await found.stop()


async def slowly(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield b"x" * 65_536
        await asyncio.sleep(0.01)


async def calls(client: httpx2.AsyncClient, path: str) -> list[httpx2.Response]:
    """Everything that a client can ask of a live session, at once."""
    return await asyncio.gather(
        client.put(f"{path}/files/large", content=slowly(60)),
        client.put(f"{path}/files/small", content=b"x"),
        client.get(f"{path}/files/"),
        client.get(f"{path}/files/small"),
        client.get(f"{path}/screenshot"),
        client.get(f"{path}/clipboard"),
        client.put(f"{path}/clipboard", json={"text": "x"}),
        client.get(f"{path}/history"),
        client.get(f"{path}/steps"),
        client.get(path),
        client.patch(path, json={"name": "x", "display": "800x600"}),
        client.delete(f"{path}/history"),
    )


@pytest.mark.timeout(240)
async def test_calls_during_the_end_are_conflicts(server: LiveServer) -> None:
    async with server.client() as client:
        for delay in (0.0, 0.005, 0.02, 0.05, 0.1, 0.3):
            created = await client.post("/sessions", json={})
            assert created.status_code == 200, created.text
            path = f"/sessions/{created.json()['id']}"
            await client.put(f"{path}/files/small", content=b"x")
            racing = asyncio.create_task(calls(client, path))
            await asyncio.sleep(delay)
            assert (await client.delete(path)).status_code == 200
            answers = await racing
            wrong = [
                (str(one.request.url), one.status_code, one.text) for one in answers if one.status_code not in GOOD
            ]
            assert wrong == [], "\n".join(map(str, wrong))
    assert "Traceback" not in server.log()
