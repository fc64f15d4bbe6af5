"""A client's WebSocket frames as the VNC proxy reads them."""

from __future__ import annotations

import os
import random

import pytest

from cambio_lab.api.frames import BINARY, CLOSE, PING, Frames, header

MASK = b"\x12\x34\x56\x78"


def masked(payload: bytes, opcode: int = BINARY, *, final: bool = True) -> bytes:
    """As a browser sends it."""
    plain = bytearray(header(len(payload), opcode))
    plain[0] &= 0xFF if final else 0x7F
    plain[1] |= 0x80
    return bytes(plain) + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536])
def test_any_length_in_any_pieces(length: int) -> None:
    payload = os.urandom(length)
    stream = masked(payload) + masked(b"next")
    frames, found, cut = Frames(1 << 20), [], random.Random(length)
    while stream:
        size = cut.choice((1, 2, 7, 40_000))
        found += frames.feed(stream[:size])
        stream = stream[size:]
    assert found == [(BINARY, payload), (BINARY, b"next")]


def test_fragments_are_pieces_of_one_stream_with_control_frames_between() -> None:
    stream = masked(b"on", final=False) + masked(b"?", PING) + masked(b"e", 0) + masked(b"\x03\xe8", CLOSE)
    assert Frames(100).feed(stream) == [(BINARY, b"on"), (PING, b"?"), (BINARY, b"e"), (CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (header(3) + b"abc", "may not send"),
        (b"\xc2\x80" + MASK, "may not send"),
        (masked(b"", 3), "may not send"),
        (masked(b"x" * 126, PING), "control"),
        (masked(b"x", PING, final=False), "control"),
        (masked(b"x" * 101), "too long"),
        (b"\x82\xff" + b"\xff" * 8 + MASK, "too long"),
    ],
)
def test_what_a_client_may_not_send(frame: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Frames(100).feed(frame)
