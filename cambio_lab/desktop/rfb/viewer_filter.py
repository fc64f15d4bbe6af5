"""Answer a viewer in the desktop's place, then filter its messages: viewing passes, input while it may act."""

from __future__ import annotations

import struct
from collections import Counter

from ..keys import HumanActions
from .desktop_filter import ENCODINGS, DesktopOutput
from .stream import NONE, VERSION

_FORMAT, _ENCODINGS = 0, 2
_REQUEST, _KEY, _POINTER, _CUT_TEXT, _EXTENDED_KEY = 3, 4, 5, 6, 255
_LARGEST = 16 * 1024 * 1024
_MOST_KEYS = 64
"""Keys of one viewer that are down at once: more than a keyboard tells apart."""
_MOST_ENCODINGS = 256


class ViewerInput:
    """Feed it the viewer's bytes from ClientInit on; it returns what may go to the desktop.

    Messages are recognised by their lengths only (RFC 6143 section 7.5 and the extensions noVNC and TigerVNC's viewers
    use), so a message that is dropped leaves the stream whole. Dropped while :attr:`may_act` is false: keys, pointer
    buttons and moves, clipboard, resizing. What it holds down when :attr:`may_act` ends is released by :meth:`allow`.
    ``output`` is the other direction: it is told what the viewer requests.
    """

    def __init__(self, *, may_act: bool = False, output: DesktopOutput | None = None) -> None:
        self.may_act = may_act
        self.dropped = 0
        self.counts = Counter[str]()
        """What the viewer did since the last report, by the fields of ``HumanInput``; never what was typed."""
        self.actions = HumanActions()
        self._output = output or DesktopOutput()
        self._buffer = bytearray()
        self._greeted = self._requested = False
        self._skip = 0
        self._skip_passes = False
        self._up = b""
        """The message that releases the viewer's mouse buttons where they were last; empty: none is down."""
        self._keys: dict[bytes, bytes] = {}
        """The keys that are down, each with the message that releases it, oldest first."""
        self._release_due = False
        self._format = b""

    def allow(self, may_act: bool) -> bytes:
        """Set :attr:`may_act`; return what releases all that the viewer holds when it ends.

        Xvnc ignores other clients' mouse while one client has a button down, and keys belong to all clients.
        """
        lost, self.may_act = self.may_act and not may_act, may_act
        if not lost:
            return b""
        self.actions.release()
        if self._skip and self._skip_passes:  # in the middle of a message: as soon as it is through
            self._release_due = True
            return b""
        return self._release()

    def _release(self) -> bytes:
        ups = self._up + b"".join(self._keys.values())
        self._up = b""
        self._keys.clear()
        self._release_due = False
        return ups

    def feed(self, data: bytes) -> bytes:
        """``ValueError`` for a message of unknown kind: the connection cannot be followed any further."""
        self._buffer += data
        out = bytearray()
        if not self._greeted and self._buffer:
            # ClientInit: always shared; an exclusive viewer would disconnect the agent.
            out += b"\x01"
            del self._buffer[:1]
            self._greeted = True
        while self._buffer:
            if self._skip:
                part = min(self._skip, len(self._buffer))
                out += self._buffer[:part] if self._skip_passes else b""
                del self._buffer[:part]
                self._skip -= part
                if self._release_due and not self._skip:
                    out += self._release()
                continue
            taken = self._header()
            if taken is None:
                break
            header, body = taken
            passes = self._passes(header)
            del self._buffer[: len(header)]
            out += self._noted(header) + self._prepared(header) if passes else b""
            self._skip, self._skip_passes = body, passes
        return bytes(out)

    def _header(self) -> tuple[bytes, int] | None:
        """The next message's fixed part and how much follows it; ``None`` while it is incomplete."""
        buffer = self._buffer
        kind = buffer[0]
        length = _FIXED.get(kind)
        if length is None:
            raise ValueError(f"a viewer's message of unknown kind {kind}")
        if len(buffer) < length:
            return None
        body = 0
        if kind == _ENCODINGS:
            count = int.from_bytes(buffer[2:4], "big")
            if count > _MOST_ENCODINGS:
                raise ValueError("a viewer's list of encodings is too long")
            length += 4 * count
            if len(buffer) < length:
                return None
        elif kind == _CUT_TEXT:
            (signed,) = struct.unpack_from(">i", buffer, 4)
            body = abs(signed)
            if body > _LARGEST:
                raise ValueError("a viewer's clipboard of impossible length")
            if signed < 0 and body >= 4:  # the extended clipboard: its flags belong to the fixed part
                length, body = length + 4, body - 4
                if len(buffer) < length:
                    return None
        elif kind == 248:
            body = buffer[8]
        elif kind == 251:
            body = 16 * buffer[6]
        return bytes(buffer[:length]), body

    def _passes(self, header: bytes) -> bool:
        kind = header[0]
        if kind not in _ACTS:
            return True
        if kind == _CUT_TEXT and len(header) == 12 and header[8] & _NEGOTIATES:
            return True
        if not self.may_act:
            if kind in _DOWN and not any(header[_DOWN[kind]]):
                return True  # a key that went down while it counted must come up again
            self.dropped += 1
            return False
        if kind == _POINTER:
            self.counts["pointer_events"] += 1
            self.actions.pointer(header[1], *struct.unpack_from(">HH", header, 2))
        elif kind == _CUT_TEXT:
            self.counts["clipboard_events"] += 1
        elif kind in _DOWN:
            self.counts["key_events"] += 1
            self.actions.key(any(header[_DOWN[kind]]), int.from_bytes(header[4:8], "big"))
        return True

    def _prepared(self, header: bytes) -> bytes:
        """Tell the other direction what the viewer requests; without the encodings that it cannot follow."""
        kind = header[0]
        if kind == _REQUEST:
            self._requested = True
            self._output.requested = min(self._output.requested + 1, 64)
        elif kind == _FORMAT:
            if header[4] not in (8, 16, 32) or (self._requested and header[4:6] != self._format):
                raise ValueError("a viewer's pixel format cannot be followed")
            self._format = header[4:6]
            self._output.bits, self._output.depth = self._format
        elif kind == _ENCODINGS:
            wanted = struct.unpack_from(f">{len(header) // 4 - 1}i", header, 4)
            chosen = [encoding for encoding in wanted if encoding in ENCODINGS]
            return struct.pack(f">BxH{len(chosen)}i", _ENCODINGS, len(chosen), *chosen)
        return header

    def _noted(self, header: bytes) -> bytes:
        """Remember what this message presses or releases; return the release of a key too many."""
        kind = header[0]
        if kind == _POINTER:
            self._up = bytes([_POINTER, 0]) + header[2:] if header[1] else b""
        elif kind in _DOWN:
            down = _DOWN[kind]
            # Xvnc knows a key by its scan code, where there is one: the keysym may differ once Shift has gone up.
            key = header[:1] + (header[8:] if any(header[8:]) else header[4:8])
            self._keys.pop(key, None)
            if any(header[down]):
                self._keys[key] = header[: down.start] + bytes(down.stop - down.start) + header[down.stop :]
            if len(self._keys) > _MOST_KEYS:
                return self._keys.pop(next(iter(self._keys)))
        return b""


# Kind of message -> bytes of its fixed part.
_FIXED = {
    _FORMAT: 20,
    _ENCODINGS: 4,
    _REQUEST: 10,
    _KEY: 8,
    _POINTER: 6,
    _CUT_TEXT: 8,
    150: 10,
    248: 9,
    250: 4,
    251: 8,
    _EXTENDED_KEY: 12,
}
_NEGOTIATES = 0b0011
"""Extended clipboard actions that set nothing: telling capabilities, asking for the text."""
_DOWN = {_KEY: slice(1, 2), _EXTENDED_KEY: slice(2, 4)}
"""Where a key's message says that it went down."""
_ACTS = {*_DOWN, _POINTER, _CUT_TEXT, 250, 251}


class Greeting:
    """Answer a viewer in place of the desktop: RFB 3.8, no authentication, accepted.

    Send :attr:`first`, then :meth:`feed` the viewer's bytes; when :attr:`done`, the rest belongs to the desktop.
    """

    first = VERSION

    def __init__(self) -> None:
        self.done = False
        self._received = bytearray()
        self._agreed = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what the viewer and what the desktop gets. ``ValueError`` when the viewer does not speak RFB 3.8."""
        if self.done:
            return b"", data
        self._received += data
        reply = b""
        if not self._agreed and len(self._received) >= len(VERSION):
            if not self._received.startswith(VERSION):
                raise ValueError("the viewer does not speak RFB 3.8")
            del self._received[: len(VERSION)]
            self._agreed, reply = True, bytes([1, NONE])
        if self._agreed and self._received:
            if self._received.pop(0) != NONE:
                raise ValueError("the viewer chose a security type that was not offered")
            self.done = True
            rest = bytes(self._received)
            self._received.clear()
            return reply + bytes(4), rest
        return reply, b""
