"""When others stop the server: what counts as activity, and the signal that JupyterHub sends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime

import httpx2
from websockets.asyncio.client import connect

from tests.live_server import LiveServer

StartServer = Callable[..., Awaitable[LiveServer]]


async def last_activity(client: httpx2.AsyncClient) -> datetime:
    """As JupyterHub and Jupyter's own idle shutdown see it; asking is no activity."""
    answer = await client.get("/api/status")
    return datetime.fromisoformat(answer.raise_for_status().json()["last_activity"])


async def test_an_agent_at_work_is_activity_and_an_idle_session_is_none(start_server: StartServer) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # accepts, and never answers
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    server = await start_server(
        model="claude-opus-4-8", env={"ANTHROPIC_BASE_URL": address, "ANTHROPIC_API_KEY": "key"}
    )
    async with server.client() as client:
        session = (await client.post("/sessions", json={})).raise_for_status().json()
        before = await last_activity(client)
        await asyncio.sleep(1.5)
        assert await last_activity(client) == before
        async with connect(f"{server.ws_url}/ws/{session['id']}", additional_headers=server.headers) as agent:
            await agent.send(json.dumps({"content": "Think for long.", "metadata": {}}))
            while json.loads(await agent.recv()).get("status") != "thinking":
                pass
        async with asyncio.timeout(30):
            while (await last_activity(client) - before).total_seconds() < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        (await client.post(f"/sessions/{session['id']}/stop")).raise_for_status()
        await asyncio.sleep(1)
        before = await last_activity(client)
        await asyncio.sleep(1.5)
        assert await last_activity(client) == before
    silent.close()


async def test_without_a_terminal_sigint_stops_the_server_in_order(start_server: StartServer) -> None:
    """As JupyterHub's spawner stops it; Jupyter alone would leave the desktops behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a background job ignores it
    try:
        server = await start_server()
    finally:
        signal.signal(signal.SIGINT, before)
    async with server.client() as client:
        (await client.post("/sessions", json={})).raise_for_status()
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(server.process.wait(), 15) == 0, server.log()
    server = await start_server(data_dir=server.data_dir)
    async with server.client() as client:
        (session,) = (await client.get("/sessions")).json()["sessions"]
        ended = (await client.get(f"/sessions/{session['id']}")).json()
    assert (ended["status"], ended["end_reason"]) == ("inactive", "shutdown")
