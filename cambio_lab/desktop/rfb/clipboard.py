"""TigerVNC's extended clipboard: UTF-8 both ways, sent only when somebody pastes.

Messages are ``ClientCutText``/``ServerCutText`` whose length is negative: four bytes of flags (which formats, which
action), then the action's data. Text is length-prefixed, NUL-terminated, CRLF-ended lines under zlib.
"""

from __future__ import annotations

import struct
import zlib

ENCODING = -0x3F5E1A32  # 0xC0A1E5CE as a signed number

TEXT = 1 << 0
CAPS, REQUEST, PEEK, NOTIFY, PROVIDE = (1 << bit for bit in range(24, 29))
LARGEST = 16 * 1024 * 1024
"""Bytes of text that we take from a desktop; a longer clipboard is refused rather than inflated without end."""


def cut_text(data: bytes, kind: int = 6) -> bytes:
    """A cut-text message (``kind`` 6 from a client) that carries ``data`` in the extended way."""
    return struct.pack(">Bxxxi", kind, -len(data)) + data


def caps() -> bytes:
    """What we can do: text up to ``LARGEST`` bytes, announced rather than sent unasked."""
    return cut_text(struct.pack(">II", CAPS | REQUEST | PEEK | NOTIFY | PROVIDE | TEXT, 0))


def request() -> bytes:
    return cut_text(struct.pack(">I", REQUEST | TEXT))


def notify(has_text: bool) -> bytes:
    return cut_text(struct.pack(">I", NOTIFY | (TEXT if has_text else 0)))


def provide(text: str) -> bytes:
    body = text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8", "replace") + b"\0"
    return cut_text(struct.pack(">I", PROVIDE | TEXT) + zlib.compress(struct.pack(">I", len(body)) + body))


def parse_provided(data: bytes) -> str:
    """The text of a ``provide`` action's data. ``ValueError`` when it is damaged or longer than ``LARGEST``."""
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data, LARGEST + 5)
    except zlib.error as error:
        raise ValueError("the clipboard's text is damaged") from error
    if len(body) < 4:
        raise ValueError("the clipboard's text is cut off")
    (length,) = struct.unpack_from(">I", body)
    if length > LARGEST:
        raise ValueError("the clipboard's text is too long")
    return body[4 : 4 + length].rstrip(b"\0").decode("utf-8", "replace").replace("\r\n", "\n")
