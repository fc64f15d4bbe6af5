"""The RFB connection itself: dropped, shared, resized, and the server's side of a viewer."""

from __future__ import annotations

import asyncio
import struct
import zlib
from dataclasses import replace

import pytest

from cambio_lab.desktop import clipboard
from cambio_lab.desktop.base import Point, Size
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.rfb import RfbClient
from cambio_lab.desktop.upstream import Greeting, RfbUpstream
from cambio_lab.desktop.viewer import ViewerInput
from cambio_lab.desktop.vncauth import answer, new_password, obfuscate, reveal
from cambio_lab.errors import DesktopLost


def test_vnc_auth() -> None:
    # Computed with vncpasswd -f and with LibVNCClient.
    assert obfuscate("abcdefgh").hex() == "db8ab02565e3b4c2"
    assert reveal(obfuscate("Xy7")) == "Xy7"
    assert answer(bytes(range(16)), "secret") == answer(bytes(range(16)), "secret\0\0")
    assert answer(bytes(16), "longerthan8") == answer(bytes(16), "longerth")
    assert len({new_password() for _ in range(100)}) == 100


async def test_a_dropped_connection_is_restored_in_place(either: ConnectedDesktop) -> None:
    assert (await either.screenshot()).width == 1280
    connection = either._connection
    assert connection._client is not None
    connection._client._stream.close()
    await either.click("left", Point(500, 400))
    assert await either.cursor_position() == Point(500, 400)
    assert (await either.screenshot()).width == 1280
    assert connection.reconnects == 1
    assert await either.alive()


async def test_a_dead_desktop_is_lost(local_desktop: ConnectedDesktop) -> None:
    lost = asyncio.create_task(local_desktop.lost())
    await local_desktop.execute(["pkill", "-KILL", "-f", f"Xvnc.*{local_desktop.desktop_id}/rfb"])
    assert await asyncio.wait_for(lost, 10)
    for action in (local_desktop.screenshot(), local_desktop.key("a"), local_desktop.get_clipboard()):
        with pytest.raises(DesktopLost):
            await action


async def test_viewers_share(either: ConnectedDesktop) -> None:
    seen = asyncio.Event()
    viewers = [await RfbClient.connect(either.endpoint(), lambda damage: seen.set()) for _ in range(3)]
    for viewer in viewers:
        viewer.request_update(incremental=False)
    await asyncio.wait_for(seen.wait(), 5)
    await either.resize(Size(1000, 700))
    async with asyncio.timeout(5):
        while viewers[0].screen.size != Size(1000, 700):
            viewers[0].request_update()
            await asyncio.sleep(0.05)
    for viewer in viewers:
        await viewer.close()
    assert (await either.screenshot()).width == 1000


async def test_clipboard_both_ways(either: ConnectedDesktop) -> None:
    text = "first line\näöß€漢字🙂\ttab"
    await either.set_clipboard(text)
    assert await either.get_clipboard() == text
    # A program pastes it, and another one copies.
    paste = "import tkinter; r = tkinter.Tk(); r.update(); print(r.clipboard_get(), end='')"
    code, out, error = await either.execute([either.machine.python, "-c", paste])
    assert (code, out.decode()) == (0, text), error
    copy = "import tkinter; r = tkinter.Tk(); r.clipboard_append('copied ü'); r.mainloop()"
    copying = asyncio.create_task(either.execute([either.machine.python, "-c", copy]))
    async with asyncio.timeout(15):
        while await either.get_clipboard() != "copied ü":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    copying.cancel()
    await asyncio.wait([copying])


def test_a_bomb_in_the_clipboard_is_refused() -> None:
    for bomb in (zlib.compress(b"\xff\xff\xff\xff" + b"x" * 100_000), zlib.compress(b"x"), b"no zlib"):
        with pytest.raises(ValueError, match="clipboard"):
            clipboard.parse_provided(bomb)


async def test_upstream_answers_the_password_and_passes_bytes(docker_desktop: ConnectedDesktop) -> None:
    got = bytearray()
    upstream = await RfbUpstream.connect(docker_desktop.endpoint())
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    upstream.start(got.extend, lambda reason: closed.set_result(None))
    upstream.write(b"\x01")
    async with asyncio.timeout(5):
        while len(got) < 24:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert struct.unpack(">HH", got[:4]) == (1280, 800)
    upstream.pause()
    upstream.write(struct.pack(">BB4H", 3, 0, 0, 0, 1280, 800))
    await asyncio.sleep(0.2)
    held = len(got)
    upstream.resume()
    async with asyncio.timeout(5):
        while len(got) < held + 1280 * 800 * 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    upstream.close()
    await asyncio.wait_for(closed, 5)
    with pytest.raises(DesktopLost, match="password"):
        await RfbUpstream.connect(replace(docker_desktop.endpoint(), password="wrong"))
    with pytest.raises(DesktopLost, match="does not answer"):
        await RfbUpstream.connect(replace(docker_desktop.endpoint(), port=1))


def test_greeting_byte_by_byte() -> None:
    greeting = Greeting()
    sent = b""
    for byte in b"RFB 003.008\n\x01\x01rest":
        reply, rest = greeting.feed(bytes([byte]))
        sent += reply
        if greeting.done and rest:
            assert rest in (b"\x01", b"r", b"e", b"s", b"t")
    assert sent == b"\x01\x01" + b"\0\0\0\0"
    assert Greeting().feed(b"RFB 003.008\n\x01\x01more")[1] == b"\x01more"
    for bad in (b"RFB 003.003\n", b"RFB 003.008\n\x02"):
        with pytest.raises(ValueError, match="viewer"):
            Greeting().feed(bad)


LOOK = (
    struct.pack(">Bxxx16s", 0, b"f" * 16)
    + struct.pack(">BxHii", 2, 2, 0, 1)
    + struct.pack(">BB4H", 3, 0, 0, 0, 9, 9)
    + struct.pack(">BxxxIB", 248, 1, 4)
    + b"abcd"
    + struct.pack(">BxxxiI", 6, -4, clipboard.CAPS)
)
ACT = (
    struct.pack(">BBxxI", 4, 1, 97)
    + struct.pack(">BBHH", 5, 0, 9, 9)
    + struct.pack(">Bxxxi", 6, 3)
    + b"cut"
    + struct.pack(">BxHHBx", 251, 800, 600, 1)
    + b"s" * 16
)


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_a_viewer_that_only_looks(piece: int) -> None:
    stream = b"\x00" + LOOK + ACT + LOOK
    for may_act, expected in ((False, b"\x01" + LOOK + LOOK), (True, b"\x01" + LOOK + ACT + LOOK)):
        viewer = ViewerInput(may_act=may_act)
        passed = b"".join(viewer.feed(stream[n : n + piece]) for n in range(0, len(stream), piece))
        assert passed == expected
        counts = viewer.take_counts()
        assert (counts.keys, counts.pointer, counts.clipboard) == ((1, 1, 1) if may_act else (0, 0, 0))
        assert viewer.dropped == (0 if may_act else 4)
    with pytest.raises(ValueError, match="unknown kind 77"):
        ViewerInput().feed(b"\x01\x4d")
