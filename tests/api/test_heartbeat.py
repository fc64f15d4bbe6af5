"""Connections are kept alive, and dead ones are dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from tests.live_server import LiveServer

from .test_sockets import connect, make


async def test_heartbeats_and_dead_peers(start_server: Any) -> None:
    server: LiveServer = await start_server(env={"CAMBIO_LAB_HEARTBEAT": "0.3"})
    session = await make(server)
    async with aiohttp.ClientSession() as client:
        async with await connect(server, client, f"/ws/{session}") as socket:
            await socket.receive()
            for _ in range(3):
                beat = await socket.receive_json(timeout=2)
                assert beat["type"] == "heartbeat" and set(beat) == {"type", "timestamp"}
        dead = await connect(server, client, f"/ws/{session}", autoping=False)
        async with asyncio.timeout(10):  # pings come and are not answered
            while (await dead.receive()).type not in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE):
                pass
