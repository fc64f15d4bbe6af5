"""``/vnc``: RFB through the server, read frame by frame without Tornado."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from benchmarks.vnc import Viewer
from tests.live_server import LiveServer

from .conftest import eventually, running

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


async def connect(
    server: LiveServer, client: aiohttp.ClientSession, session: str, viewer: str = "", **options: Any
) -> Any:
    path = f"{server.ws_url}/vnc/{session}?viewer={viewer}"
    return await client.ws_connect(path, headers=server.headers, max_msg_size=0, **options)


async def test_screenshots_pings_and_an_orderly_end(
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


async def test_whoever_loses_control_with_a_button_down_leaves_the_mouse_to_the_next(
    server: LiveServer, client: aiohttp.ClientSession, session: dict[str, Any]
) -> None:
    sockets = [await connect(server, client, session["id"], name) for name in ("ann", "bob")]
    ann, bob = (Viewer(socket.receive_bytes, socket.send_bytes) for socket in sockets)
    await ann.greet(None)
    await bob.greet(None)

    async def pixels() -> bytes:
        """What bob sees where he is about to move; the server draws the pointer."""
        await bob.send(struct.pack(">BB4H", 3, 0, 600, 600, 32, 32))
        seen, left = bytearray(32 * 32 * 4), 32 * 32
        while left > 0:
            _, count = struct.unpack(">xBH", await bob.take(4))
            for _ in range(count):
                x, y, width, height, _ = struct.unpack(">4Hi", await bob.take(12))
                for row in range(y - 600, y - 600 + height):
                    start = (row * 32 + x - 600) * 4
                    seen[start : start + 4 * width] = await bob.take(4 * width)
                left -= width * height
        return bytes(seen)

    before = await pixels()
    await ann.send(struct.pack(">BBHH", 5, 1, 200, 200))
    async with client.ws_connect(f"{server.ws_url}/ws/{session['id']}", headers=server.headers) as commands:
        await asyncio.sleep(0.2)
        await commands.send_json({"type": "take_control", "viewer": "bob"})
        async with asyncio.timeout(5):
            while (await commands.receive_json()).get("metadata", {}).get("viewer") != "bob":
                pass
        await bob.send(struct.pack(">BBHH", 5, 0, 610, 610))

        async def moved() -> bool:
            return await pixels() != before

        await eventually(moved, 5)
        await commands.send_json({"type": "give_back", "viewer": "bob"})
    for socket in sockets:
        await socket.close()


BUTTONS = """
import ctypes
x = ctypes.CDLL("libX11.so.6"); x.XOpenDisplay.restype = ctypes.c_void_p; x.XDefaultRootWindow.restype = ctypes.c_ulong
display = ctypes.c_void_p(x.XOpenDisplay(None)); root = ctypes.c_ulong(x.XDefaultRootWindow(display))
a, b = ctypes.c_ulong(), ctypes.c_ulong(); found = [ctypes.c_int() for _ in range(5)]
x.XQueryPointer(display, root, *map(ctypes.byref, (a, b, *found)))
print(found[4].value >> 8)
"""


async def held_buttons(server: LiveServer) -> bool:
    """Whether a mouse button is down on any of the server's displays, asked of X itself."""
    assert server.process is not None
    held = False
    for child in psutil.Process(server.process.pid).children(recursive=True):
        try:
            display = child.environ() if child.name() == "openbox" else None
        except psutil.NoSuchProcess:  # another program of the desktop has ended meanwhile
            continue
        if display is not None:
            asked = await asyncio.create_subprocess_exec(
                sys.executable, "-c", BUTTONS, env=display, stdout=asyncio.subprocess.PIPE
            )
            held |= int((await asked.communicate())[0]) > 0
    return held


async def test_the_button_of_a_viewer_that_left_comes_up(
    server: LiveServer, client: aiohttp.ClientSession, session: dict[str, Any]
) -> None:
    socket = await connect(server, client, session["id"], "ann")
    ann = Viewer(socket.receive_bytes, socket.send_bytes)
    await ann.greet(None)
    await ann.send(struct.pack(">BBHH", 5, 1, 200, 200))
    await eventually(lambda: held_buttons(server), 5)
    await socket.close()

    async def up() -> bool:
        return not await held_buttons(server)

    await eventually(up, 5)


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
