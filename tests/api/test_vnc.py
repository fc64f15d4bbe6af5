"""``/vnc``: RFB through the server, read frame by frame without Tornado."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from benchmarks.vnc import Viewer
from tests.live_server import LiveServer

from .conftest import running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """Pings every second: an answer is due when the next one is."""
    environment = {"CAMBIO_LAB_HEARTBEAT": "1"}
    async for found in running(tmp_path_factory.mktemp("vnc"), env=environment):
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def connect(server: LiveServer, client: aiohttp.ClientSession, session: str, **options: Any) -> Any:
    path = f"{server.ws_url}/vnc/{session}"
    return await client.ws_connect(path, headers=server.headers, max_msg_size=0, **options)


async def test_pictures_pings_and_an_orderly_end(
    server: LiveServer, client: aiohttp.ClientSession, session: dict[str, Any]
) -> None:
    socket = await connect(server, client, session["id"], autoping=False)
    viewer = Viewer(socket.receive_bytes, socket.send_bytes)
    await viewer.greet(None)
    await viewer.update(1280, 800)
    await socket.ping(b"there?")
    async with asyncio.timeout(5):
        while (message := await socket.receive()).type is not aiohttp.WSMsgType.PONG:
            assert message.type is aiohttp.WSMsgType.PING  # the server's own
            await socket.pong(message.data)
    assert message.data == b"there?"
    await viewer.update(16, 16)
    assert await socket.close(code=1000)
    assert socket.close_code == 1000


async def test_a_stream_in_pieces_of_any_size(
    server: LiveServer, client: aiohttp.ClientSession, session: dict[str, Any]
) -> None:
    socket = await connect(server, client, session["id"])

    async def by_bytes(data: bytes) -> None:
        for byte in data:
            await socket.send_bytes(bytes([byte]))

    viewer = Viewer(socket.receive_bytes, by_bytes)
    await viewer.greet(None)
    await viewer.update(64, 64)
    await socket.send_bytes(b"")
    await viewer.update(64, 64)
    await socket.close()


async def test_what_is_not_rfb_ends_the_connection(
    server: LiveServer, client: aiohttp.ClientSession, session: dict[str, Any]
) -> None:
    socket = await connect(server, client, session["id"])
    await socket.send_bytes(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(5):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.BINARY:
            pass
    assert message.type is aiohttp.WSMsgType.CLOSE
    assert socket.close_code == 1002


async def test_a_viewer_that_answers_no_ping_is_let_go(
    server: LiveServer, client: aiohttp.ClientSession, session: dict[str, Any]
) -> None:
    answering = await connect(server, client, session["id"])
    greeting = await answering.receive_bytes()
    answers = asyncio.create_task(answering.receive())  # aiohttp answers pings while it waits
    silent = await connect(server, client, session["id"], autoping=False)
    kinds = []
    async with asyncio.timeout(10):
        while not silent.closed:
            kinds.append((await silent.receive()).type)
    assert aiohttp.WSMsgType.PING in kinds
    await answering.send_bytes(greeting)
    assert (await answers).type is aiohttp.WSMsgType.BINARY
    await answering.close()


async def test_the_end_of_the_session_ends_its_viewers(server: LiveServer, client: aiohttp.ClientSession) -> None:
    async with server.client() as rest:
        created = (await rest.post("/sessions", json={})).json()
        socket = await connect(server, client, created["id"])
        viewer = Viewer(socket.receive_bytes, socket.send_bytes)
        await viewer.greet(None)
        await rest.delete(f"/sessions/{created['id']}")
    async with asyncio.timeout(5):
        while not socket.closed:
            await socket.receive()
    assert socket.close_code == 1000
