"""Messages from an RFB client to its server, as bytes (RFC 6143, section 7.5, and TigerVNC's extensions)."""

from __future__ import annotations

import struct

from ..base import Size
from .clipboard import ENCODING as CLIPBOARD

RAW, COPY_RECT, LAST_RECT, DESKTOP_SIZE, EXTENDED_SIZE, FENCE, LEDS = 0, 1, -224, -223, -308, -312, -261
# LEDS is requested because Xvnc otherwise guesses at the client's lock keys and presses Caps Lock for every capital.
_ENCODINGS = (COPY_RECT, RAW, LAST_RECT, EXTENDED_SIZE, DESKTOP_SIZE, FENCE, LEDS, CLIPBOARD)
# 32 bits, depth 24, little endian, true colour, 255 each, shifts 16/8/0: what Xvnc itself holds, no conversion.
_PIXEL_FORMAT = struct.pack(">Bxxx4B3H3Bxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
FENCE_REQUEST, FENCE_BLOCK_BEFORE = 1 << 31, 1
_KEY = struct.Struct(">BBxxI")


def start() -> bytes:
    """Set pixel format and encodings: the first messages after the handshake."""
    return _PIXEL_FORMAT + struct.pack(f">BxH{len(_ENCODINGS)}i", 2, len(_ENCODINGS), *_ENCODINGS)


def update_request(size: Size, *, incremental: bool) -> bytes:
    """Request a framebuffer update of the whole screen."""
    return struct.pack(">BB4H", 3, incremental, 0, 0, size.width, size.height)


def pointer(x: int, y: int, buttons: int) -> bytes:
    """Move to ``x``, ``y`` with ``buttons`` down (bit 0 left, 1 middle, 2 right, 3-6 wheel up/down/left/right)."""
    return struct.pack(">BBHH", 5, buttons, x, y)


def key(keysym: int, *, down: bool) -> bytes:
    return _KEY.pack(4, down, keysym)


def fence(flags: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxIB", 248, flags, len(payload)) + payload


def set_size(layout_id: int, size: Size) -> bytes:
    """Request that the desktop itself becomes ``size``, with one screen."""
    layout = struct.pack(">IHHHHI", layout_id, 0, 0, size.width, size.height, 0)
    return struct.pack(">BxHHBx", 251, size.width, size.height, 1) + layout
