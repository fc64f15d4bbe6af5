"""The whole product at once: a server process, a real desktop, the SDK, the strict stand-in for the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.live_server import LiveServer
from tests.messages_api import MessagesApi
from tests.messages_api.fixtures import messages_api  # noqa: F401

WINDOWS = Path(__file__).parent / "windows"


@dataclass
class Bench:
    """A live session and what it takes to talk to it."""

    server: LiveServer
    api: MessagesApi
    client: httpx2.AsyncClient
    session: dict[str, Any]

    @property
    def path(self) -> str:
        return f"/sessions/{self.session['id']}"

    async def put(self, name: str, content: bytes) -> None:
        (await self.client.put(f"{self.path}/files/{name}", content=content)).raise_for_status()

    async def get(self, name: str) -> bytes | None:
        answer = await self.client.get(f"{self.path}/files/{name}")
        assert answer.status_code in (200, 404), answer.text
        return None if answer.status_code == 404 else answer.content


OpenBench = Callable[..., Any]


@pytest.fixture
def bench(start_server: Callable[..., Any], messages_api: MessagesApi) -> OpenBench:  # noqa: F811
    """``async with bench("docker") as b``: a session on that desktop, with no approvals asked; ended afterwards."""

    @asynccontextmanager
    async def open_bench(desktop: str, **config: Any) -> AsyncIterator[Bench]:
        server = await start_server(
            "--no-token", desktop=desktop, model="claude-sonnet-5-5", env=messages_api.environment
        )
        async with server.client() as client:
            answer = await client.post("/sessions", json={"config": {"approval": "never", **config}})
            answer.raise_for_status()
            yield Bench(server, messages_api, client, answer.json())
            (await client.delete(f"/sessions/{answer.json()['id']}")).raise_for_status()

    return open_bench


@pytest.fixture(params=["docker", "sandbox", pytest.param("local", marks=pytest.mark.slow)])
def desktop(request: pytest.FixtureRequest) -> str:
    """Each kind of desktop."""
    if request.param == "docker":
        request.getfixturevalue("docker_host")
    return str(request.param)
