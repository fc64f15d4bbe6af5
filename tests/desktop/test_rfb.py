"""The RFB connection itself: dropped, shared, resized, and the server's side of a viewer."""

from __future__ import annotations

import asyncio
import struct
import zlib
from dataclasses import replace

import pytest

from cambio_lab.desktop import rfb
from cambio_lab.desktop.base import Point, Size
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.rfb.client import RfbClient
from cambio_lab.desktop.rfb.stream import answer, obfuscate, reveal
from cambio_lab.desktop.rfb.viewer_filter import Greeting, ViewerInput
from cambio_lab.errors import DesktopLost


def test_vnc_auth() -> None:
    # Computed with vncpasswd -f and with LibVNCClient.
    assert obfuscate("abcdefgh").hex() == "db8ab02565e3b4c2"
    assert reveal(obfuscate("Xy7")) == "Xy7"
    assert answer(bytes(range(16)), "secret") == answer(bytes(range(16)), "secret\0\0")
    assert answer(bytes(16), "longerthan8") == answer(bytes(16), "longerth")


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
    await local_desktop.execute(["pkill", "-KILL", "-f", f"Xvnc.*{local_desktop.desktop_id}/run/rfb"])
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
            rfb.parse_provided(bomb)


async def test_a_wrong_password_and_a_closed_port_are_told_apart(docker_desktop: ConnectedDesktop) -> None:
    with pytest.raises(DesktopLost, match="password"):
        await RfbClient.connect(replace(docker_desktop.endpoint(), password="wrong"), lambda damage: None)
    with pytest.raises(DesktopLost, match="does not answer"):
        await RfbClient.connect(replace(docker_desktop.endpoint(), port=1), lambda damage: None)


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
    struct.pack(">Bxxx4B12x", 0, 32, 24, 0, 1)
    + struct.pack(">BxHii", 2, 2, 0, 1)
    + struct.pack(">BB4H", 3, 0, 0, 0, 9, 9)
    + struct.pack(">BxxxIB", 248, 1, 4)
    + b"abcd"
    + struct.pack(">BxxxiI", 6, -4, rfb.CAPS)
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
        assert viewer.counts == ({"pointer_events": 1, "key_events": 1, "clipboard_events": 1} if may_act else {})
        assert viewer.dropped == (0 if may_act else 4)
    with pytest.raises(ValueError, match="unknown kind 77"):
        ViewerInput().feed(b"\x01\x4d")


def test_a_viewer_requests_only_encodings_that_can_be_followed() -> None:
    viewer = ViewerInput()
    viewer.feed(b"\x01")
    assert viewer.feed(struct.pack(">BxH5i", 2, 5, 7, 5, 2, -239, 0)) == struct.pack(">BxH3i", 2, 3, 7, -239, 0)
    for bad in (struct.pack(">BxH", 2, 257), struct.pack(">Bxxx4B12x", 0, 24, 24, 0, 1)):
        with pytest.raises(ValueError, match="viewer's"):
            ViewerInput().feed(b"\x01" + bad)


CONTROL_DOWN, CONTROL_UP = (struct.pack(">BBHII", 255, 0, down, 0xFFE3, 0x1D) for down in (1, 0))
SHIFT_DOWN, SHIFT_UP = (struct.pack(">BBxxI", 4, down, 0xFFE1) for down in (1, 0))


def pointer(x: int, y: int, buttons: int) -> bytes:
    return struct.pack(">BBHH", 5, buttons, x, y)


def acting() -> ViewerInput:
    """A viewer that may act and has been greeted."""
    viewer = ViewerInput(may_act=True)
    viewer.feed(b"\x01")
    return viewer


def test_what_a_viewer_holds_comes_up_when_it_may_not_act_any_more() -> None:
    viewer = acting()
    viewer.feed(CONTROL_DOWN + SHIFT_DOWN + pointer(9, 9, 1) + pointer(20, 30, 1))
    assert viewer.allow(False) == pointer(20, 30, 0) + CONTROL_UP + SHIFT_UP
    assert viewer.allow(False) == viewer.allow(True) == b""
    assert viewer.allow(False) == b""
    viewer = acting()
    viewer.feed(CONTROL_DOWN + SHIFT_DOWN + pointer(9, 9, 1) + pointer(9, 9, 0) + SHIFT_UP + CONTROL_UP)
    assert viewer.allow(False) == b""


def test_a_key_comes_up_in_either_form_without_control() -> None:
    viewer = ViewerInput()
    viewer.feed(b"\x01")
    assert viewer.feed(CONTROL_DOWN + CONTROL_UP + SHIFT_DOWN + SHIFT_UP + pointer(1, 1, 0)) == CONTROL_UP + SHIFT_UP


def test_ups_wait_for_the_end_of_a_message_that_is_on_its_way() -> None:
    viewer = acting()
    cut = struct.pack(">Bxxxi", 6, 4)
    assert viewer.feed(pointer(5, 5, 1) + cut + b"te") == pointer(5, 5, 1) + cut + b"te"
    assert viewer.allow(False) == b""
    assert viewer.feed(b"xt" + pointer(6, 6, 1)) == b"xt" + pointer(5, 5, 0)


def test_no_more_keys_are_remembered_than_a_keyboard_has() -> None:
    viewer = acting()
    passed = viewer.feed(b"".join(struct.pack(">BBxxI", 4, 1, symbol) for symbol in range(1000)))
    ups = viewer.allow(False)
    assert len(ups) == 64 * 8
    assert len(passed) == 1000 * 8 + 936 * 8  # the oldest come up for the new ones
