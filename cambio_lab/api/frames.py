"""WebSocket frames (RFC 6455, section 5) as the VNC proxy needs them: a stream of bytes; fragments mean nothing.

Tornado reads a frame in four steps and a task; a person feels that in every movement of the mouse.
"""

from __future__ import annotations

import struct

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
_FINAL, _RESERVED, _OPCODE, _MASKED, _CONTROL = 0x80, 0x70, 0x0F, 0x80, 0x08
_DATA = (0, 1, BINARY)


def header(length: int, opcode: int = BINARY) -> bytes:
    """Of an unmasked, final frame."""
    if length < 126:
        return struct.pack("!BB", _FINAL | opcode, length)
    if length < 65536:
        return struct.pack("!BBH", _FINAL | opcode, 126, length)
    return struct.pack("!BBQ", _FINAL | opcode, 127, length)


class Frames:
    """A client's frames; ``largest`` is the most bytes that one may carry."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._buffer = bytearray()
        self._needed = 2

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that are whole now: opcode (:data:`BINARY` for any data) and unmasked payload.

        ``ValueError`` for what a client may not send.
        """
        if not self._buffer and _is_one_short(data) and len(data) - 6 <= self._largest:
            return [(BINARY, _unmask(data[2:6], data[6:]))]
        self._buffer += data
        found: list[tuple[int, bytes]] = []
        at = 0
        while len(self._buffer) - at >= self._needed:
            head, length = self._measure(at)
            self._needed = head + length
            if len(self._buffer) - at < self._needed:
                break
            opcode = self._buffer[at] & _OPCODE
            start = at + head
            payload = _unmask(self._buffer[start - 4 : start], self._buffer[start : start + length])
            found.append((BINARY if opcode in _DATA else opcode, payload))
            at = start + length
            self._needed = 2
        del self._buffer[:at]
        return found

    def _measure(self, at: int) -> tuple[int, int]:
        """Bytes of the header at ``at`` and of its payload; the header may be incomplete, then ``(needed, 0)``."""
        first, second = self._buffer[at], self._buffer[at + 1]
        opcode, length = first & _OPCODE, second & 0x7F
        if first & _RESERVED or not second & _MASKED or opcode not in (*_DATA, CLOSE, PING, PONG):
            raise ValueError("a frame that a client may not send")
        if opcode & _CONTROL and (length > 125 or not first & _FINAL):
            raise ValueError("a control frame that is too long or in pieces")
        head = {126: 8, 127: 14}.get(length, 6)
        if len(self._buffer) - at < head:
            return head, 0
        if head > 6:
            (length,) = struct.unpack_from("!H" if head == 8 else "!Q", self._buffer, at + 2)
        if length > self._largest:
            raise ValueError("a frame that is too long")
        return head, length


def _is_one_short(data: bytes) -> bool:
    """One whole, final, masked binary frame of less than 126 bytes and nothing else: what a viewer mostly sends."""
    length = len(data) - 6
    return 0 <= length < 126 and data[0] == _FINAL | BINARY and data[1] == _MASKED | length


def _unmask(mask: bytes | bytearray, data: bytes | bytearray) -> bytes:
    count = len(data)
    pattern = (bytes(mask) * (count // 4 + 1))[:count]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(count, "little")
