"""Every call that races with the end of its session is answered 404 or 409, never with a server error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import httpx2
import pytest

from tests.live_server import LiveServer

GOOD = {200, 404, 409}


@pytest.fixture(params=["local", "sandbox", "docker"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LiveServer]:
    found = LiveServer(data_dir=tmp_path, desktop=request.param)
    await found.start()
    yield found
    await found.stop()


async def slowly(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield b"x" * 65_536
        await asyncio.sleep(0.01)


async def within(seconds: float, call: Awaitable[httpx2.Response], name: str) -> httpx2.Response:
    try:
        return await asyncio.wait_for(call, seconds)
    except TimeoutError:
        raise AssertionError(f"{name} was not answered within {seconds} s") from None


async def calls(client: httpx2.AsyncClient, path: str) -> list[httpx2.Response]:
    """Everything that a client can ask of a live session, at once."""
    asked = {
        "upload": client.put(f"{path}/files/large", content=slowly(60)),
        "small upload": client.put(f"{path}/files/small", content=b"x"),
        "listing": client.get(f"{path}/files/"),
        "download": client.get(f"{path}/files/small"),
        "screenshot": client.get(f"{path}/screenshot"),
        "clipboard": client.get(f"{path}/clipboard"),
        "new clipboard": client.put(f"{path}/clipboard", json={"text": "x"}),
        "history": client.get(f"{path}/history"),
        "steps": client.get(f"{path}/steps"),
        "session": client.get(path),
        "change": client.patch(path, json={"name": "x", "display": "800x600"}),
        "clearing": client.delete(f"{path}/history"),
    }
    return await asyncio.gather(*[within(20, call, name) for name, call in asked.items()])


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
