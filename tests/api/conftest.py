"""One server for a whole module: most tests here only ask it questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.live_server import LiveServer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """A server with a token, local desktops and the demo model; rate limits off."""
    async for found in running(tmp_path_factory.mktemp("server")):
        yield found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def open_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """The same with ``--no-token``."""
    async for found in running(tmp_path_factory.mktemp("open"), "--no-token"):
        yield found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def session(server: LiveServer) -> AsyncIterator[dict[str, Any]]:
    """A live session on ``server``."""
    async with server.client() as client:
        created = (await client.post("/sessions", json={"name": "shared"})).json()
        yield created
        await client.delete(f"/sessions/{created['id']}")


async def running(folder: Path, *arguments: str, **options: Any) -> AsyncIterator[LiveServer]:
    found = LiveServer(*arguments, data_dir=folder, **options)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def check_envelope(response: httpx2.Response, status: int) -> dict[str, Any]:
    """The documented body of every failure; returns it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"error", "message", "details", "timestamp", "request_id"}
    assert body["request_id"] == response.headers["x-request-id"]
    assert isinstance(body["details"], dict) and body["message"] and body["error"]
    assert "Traceback" not in response.text and "/work" not in response.text and "site-packages" not in response.text
    return body


async def eventually(question: Any, patience: float = 10.0) -> Any:
    """The first true answer of an async ``question``."""
    async with asyncio.timeout(patience):
        while True:
            if answer := await question():
                return answer
            await asyncio.sleep(0.05)
