"""Follow what a desktop sends to a viewer, so that a hostile one cannot flood the viewer's page.

The bytes pass unchanged; this checks that they are RFB in the encodings that :mod:`.viewer_filter` lets a viewer
request, that every length is plausible for its rectangle, and how fast they come.
"""

from __future__ import annotations

import struct
from collections.abc import Generator

from . import (
    CAPS,
    CLIPBOARD,
    COPY_RECT,
    DESKTOP_SIZE,
    EXTENDED_SIZE,
    FENCE,
    LARGEST,
    LAST_RECT,
    LEDS,
    PROVIDE,
    RAW,
    Bucket,
)
from .reader import LARGEST_AREA, LARGEST_SIDE
from .stream import LONGEST_TEXT

TIGHT, ZRLE, CURSOR, NAME, CONTINUOUS_UPDATES, VMWARE_CURSOR = 7, 16, -239, -307, -313, 0x574D5664
_EMPTY = {DESKTOP_SIZE, -258, -316}
"""Pseudo-encodings without a body: the size itself, QEMU's key events, more mouse buttons."""
ENCODINGS = (
    {RAW, COPY_RECT, TIGHT, ZRLE, LAST_RECT, CURSOR, EXTENDED_SIZE, NAME, LEDS, VMWARE_CURSOR, CLIPBOARD}
    | {FENCE, CONTINUOUS_UPDATES}
    | _EMPTY
    | set(range(-32, -22))  # quality levels
    | set(range(-256, -246))  # compression levels
)
"""What a viewer may request."""
LIMITS = {
    "updates": (120, 240),
    "rectangles": (50_000, 100_000),
    "pixels": (500e6, 1e9),
    "messages": (300, 600),
    "sizes": (5, 20),
    "clipboard": (1, 4),
}
"""Per second, and at once, to one viewer; updates only where the viewer did not request them."""
_LARGEST_CURSOR = 512

Parser = Generator[int, bytes, None]
"""Yields how many bytes to read (and is sent them) or, negative, to skip (and is sent nothing)."""


class DesktopOutput:
    """Feed it everything from ServerInit on. ``ValueError`` says why a viewer must not get it."""

    def __init__(self) -> None:
        self.pause = 0.0
        """Seconds to wait before more is read from the desktop; the caller sets it back."""
        self.clipboards: list[bytes] = []
        """Compressed clipboards that the caller must check (in a thread) before it sends them on, and remove."""
        self.requested = 0
        """Updates that the viewer requested and has not got."""
        self.bits, self.depth = 32, 24
        """The viewer's pixel format."""
        self._width = self._height = 0
        self._buckets = {kind: Bucket(*limit) for kind, limit in LIMITS.items()}
        self._held = bytearray()
        self._parser = self._stream()
        self._wanted = next(self._parser)

    @property
    def skipping(self) -> int:
        """How many of the next bytes are not looked at."""
        return max(0, -self._wanted)

    def feed(self, data: bytes | memoryview) -> None:
        """Check ``data``; it may begin and end anywhere in a message."""
        at, end = 0, len(data)
        while at < end:
            if self._wanted < 0:
                step = min(-self._wanted, end - at)
                self._wanted += step
            else:
                step = min(self._wanted - len(self._held), end - at)
                self._held += data[at : at + step]
            at += step
            while self._wanted == 0 or 0 < self._wanted == len(self._held):
                held = bytes(self._held)
                self._held.clear()
                self._wanted = self._parser.send(held)

    def _count(self, kind: str, amount: float = 1.0) -> None:
        self.pause = max(self.pause, self._buckets[kind].take(amount))

    def _stream(self) -> Parser:
        start = yield 24
        self._resize(*struct.unpack_from(">HH", start))
        self.bits, self.depth = start[4], start[5]
        yield from self._text(struct.unpack_from(">I", start, 20)[0])
        while True:
            kind = (yield 1)[0]
            if kind == 0:
                yield from self._update()
                continue
            self._count("messages")
            if kind == 1:
                (count,) = struct.unpack(">xxxH", (yield 5))
                yield -6 * _at_most(count, 256, "colours")
            elif kind == 3:
                yield from self._cut_text()
            elif kind == 248:
                yield -_at_most((yield 8)[7], 64, "a fence")
            elif kind == 250:
                yield -3
            elif kind not in (2, 150):
                raise ValueError(f"the desktop sent a message of unknown kind {kind}")

    def _resize(self, width: int, height: int) -> None:
        if max(width, height) > LARGEST_SIDE or width * height > LARGEST_AREA:
            raise ValueError(f"the desktop's screen of {width}x{height} pixels is too large")
        if (width, height) != (self._width, self._height):
            self._count("sizes")
        self._width, self._height = width, height

    def _text(self, length: int) -> Parser:
        yield -_at_most(length, LONGEST_TEXT, "a name")

    def _cut_text(self) -> Parser:
        (length,) = struct.unpack(">xxxi", (yield 7))
        _at_most(abs(length), LARGEST, "a clipboard")
        if length > -4:
            yield -max(0, length)
            return
        (flags,) = struct.unpack(">I", (yield 4))
        # A message of capabilities lists `provide` among them and carries sizes, no text.
        if flags & PROVIDE and not flags & CAPS and length < -4:
            self._count("clipboard")
            self.clipboards.append((yield -length - 4))
        else:
            yield length + 4

    def _update(self) -> Parser:
        (count,) = struct.unpack(">xH", (yield 3))
        if self.requested:
            self.requested -= 1
        else:
            self._count("updates")
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">4Hi", (yield 12))
            self._count("rectangles")
            if encoding == LAST_RECT:
                break
            if encoding in (RAW, COPY_RECT, TIGHT, ZRLE):
                if x + width > self._width or y + height > self._height:
                    raise ValueError("the desktop sent pixels outside the screen")
                self._count("pixels", width * height)
                yield from self._pixels(width, height, encoding)
            else:
                yield from self._pseudo(y, width, height, encoding)

    def _pixels(self, width: int, height: int, encoding: int) -> Parser:
        size = width * height * self.bits // 8
        if encoding == RAW:
            yield -size
        elif encoding == COPY_RECT:
            yield -4
        elif encoding == ZRLE:
            (length,) = struct.unpack(">I", (yield 4))
            yield -_at_most(length, 2 * size + 4096, "a rectangle")
        else:
            yield from self._tight(width, height)

    def _tight(self, width: int, height: int) -> Parser:
        control = (yield 1)[0] >> 4
        pixel = 3 if (self.bits, self.depth) == (32, 24) else self.bits // 8
        size = width * height * pixel
        if control == 8:  # fill
            yield -pixel
            return
        if control > 9:
            raise ValueError(f"the desktop sent Tight pixels of unknown kind {control}")
        if control == 9:  # JPEG
            yield from self._compact(size + 65536)
            return
        if control & 4 and (chosen := (yield 1)[0]):
            if chosen > 2:
                raise ValueError(f"the desktop used the unknown Tight filter {chosen}")
            if chosen == 1:
                colours = (yield 1)[0] + 1
                yield -colours * pixel
                size = -(-width // 8) * height if colours <= 2 else width * height
        if size < 12:
            yield -size
        else:
            yield from self._compact(2 * size + 4096)

    def _compact(self, most: int) -> Parser:
        length = 0
        for shift in (0, 7, 14):
            byte = (yield 1)[0]
            length |= (byte if shift == 14 else byte & 0x7F) << shift
            if shift == 14 or byte < 0x80:
                break
        yield -_at_most(length, most, "a rectangle")

    def _pseudo(self, y: int, width: int, height: int, encoding: int) -> Parser:
        if encoding in (CURSOR, VMWARE_CURSOR):
            _at_most(max(width, height), _LARGEST_CURSOR, "a cursor")
            size = width * height * self.bits // 8
            if encoding == CURSOR:
                yield -size - -(-width // 8) * height
            else:
                alpha = (yield 2)[0]
                yield -width * height * 4 if alpha else -2 * size
        elif encoding == EXTENDED_SIZE:
            yield -16 * (yield 4)[0]
            if not y:
                self._resize(width, height)
        elif encoding == NAME:
            yield from self._text(struct.unpack(">I", (yield 4))[0])
        elif encoding == LEDS:
            yield -1
        elif encoding in _EMPTY:
            if encoding == DESKTOP_SIZE:
                self._resize(width, height)
        else:
            raise ValueError(f"the desktop used the encoding {encoding}, which was not requested")


def _at_most(length: int, most: int, what: str) -> int:
    if length > most:
        raise ValueError(f"the desktop sent {what} of {length} bytes")
    return length
