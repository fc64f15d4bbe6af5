"""Read what an RFB server sends: framebuffer updates, sizes, clipboards.

The server is hostile: every length is checked before it is read, every kind of message has a rate (:data:`LIMITS`),
and a message that began must end.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable

from cambio_lab.errors import DesktopLost

from ..base import Size
from ..screen import Rect, Screen, bounding
from . import (
    COPY_RECT,
    DESKTOP_SIZE,
    EXTENDED_SIZE,
    LARGEST,
    LAST_RECT,
    LEDS,
    RAW,
    Clipboard,
    LimitExceeded,
    set_size,
)
from .stream import ByteStream

log = logging.getLogger(__name__)

_NUM_LOCK, _CAPS_LOCK = 2, 4
_BELL = 2
LARGEST_SIDE, LARGEST_AREA = 8192, 7680 * 4320
"""Pixels. A program in the desktop can make its X server claim any size, and screenshots of it use our memory."""
UNREQUESTED_AREA = 2560 * 1600
"""Pixels of a screen that grew without our request."""
REPAINTS = 4
"""How often one update may paint the whole screen."""
MESSAGE_SECONDS = 20.0
"""Seconds in which a message that began must end."""
_DAMAGE = 64
"""Rectangles of one update that are told apart."""

Updated = Callable[[list[Rect]], None]


def is_acceptable(size: Size, area: int = LARGEST_AREA) -> bool:
    """Return whether the server holds and encodes a screen of this size."""
    return min(size) > 0 and max(size) <= LARGEST_SIDE and size.width * size.height <= area


class ServerReader:
    """The reading half of one connection; :meth:`run` ends when the connection does.

    ``updated`` is called after each framebuffer update with the damaged rectangles. ``whole`` is set while the screen
    is not in the middle of an update. ``next_update`` and ``resizes`` are the answers that the writing half waits for.
    """

    def __init__(self, stream: ByteStream, screen: Screen, updated: Updated) -> None:
        self.screen = screen
        self.caps_lock = self.num_lock = False
        self.can_resize = False
        self.layout_id = 0
        self.requests = 0
        """Framebuffer updates that were requested and have not come."""
        self.next_update: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.resizes: set[asyncio.Future[int]] = set()
        self.whole = asyncio.Event()
        self.whole.set()
        self._stream = stream
        self.clipboard = Clipboard(stream)
        self._updated = updated
        self._budget = stream.budget
        self._area = UNREQUESTED_AREA
        self.allow(screen.size)
        self._oversized = False
        self._message_ends = float("inf")
        self._watchdog: asyncio.TimerHandle | None = None

    def allow(self, size: Size) -> None:
        """Accept a screen as large as ``size``, which we requested."""
        self._area = max(UNREQUESTED_AREA, size.width * size.height)

    def request_update(self, *, incremental: bool = True) -> None:
        """Request one framebuffer update; an incremental one comes when something changes."""
        self.requests = min(self.requests + 1, 8)
        self._stream.write(struct.pack(">BB4H", 3, incremental, 0, 0, *self.screen.size))

    async def run(self) -> Exception | None:
        """Follow the stream to its end and return the reason."""
        self._budget.start_clock()
        self._watch_message()
        try:
            while True:
                await self._message()
        except DesktopLost as error:
            return error
        except Exception as error:
            log.exception("RFB reader failed")
            return error
        finally:
            self._budget.stop_clock()
            assert self._watchdog is not None
            self._watchdog.cancel()
            self.whole.set()
            self._stream.close()

    async def _message(self) -> None:
        kind = (await self._stream.read(1))[0]
        if kind == _BELL:
            self._budget.spend("bells", 1 + self._stream.skip_byte(_BELL, 4096))
            return
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise DesktopLost(f"The VNC server sent a message of unknown kind {kind}.")
        self._message_ends = asyncio.get_running_loop().time() + MESSAGE_SECONDS
        if kind:
            self._budget.spend("messages")
        await handler(self)
        self._message_ends = float("inf")

    def _watch_message(self) -> None:
        """Close the connection when a message does not end: a server can send one byte a minute."""
        loop = asyncio.get_running_loop()
        if loop.time() > self._message_ends:
            self._stream.fail(LimitExceeded("The desktop's VNC server does not finish a message."))
        self._watchdog = loop.call_later(MESSAGE_SECONDS / 10, self._watch_message)

    async def _framebuffer_update(self) -> None:
        _, count = struct.unpack(">BH", await self._stream.read(3))
        self._budget.spend("framebuffer updates")
        if not self.requests:
            self._budget.spend("unrequested framebuffer updates")
        self.requests = max(0, self.requests - 1)
        damage: list[Rect] = []
        painted = 0
        self.whole.clear()
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">4Hi", await self._stream.read(12))
            if encoding == LAST_RECT:
                break
            rect = Rect(x, y, width, height)
            painted += await self._rectangle(rect, encoding, damage)
            if painted > REPAINTS * max(1, self.screen.size.width * self.screen.size.height):
                raise LimitExceeded("The desktop's VNC server sent too many pixels in one update.")
        self.screen.serial += 1
        self.whole.set()
        self._updated(damage)
        self.next_update.set_result(None)
        self.next_update = asyncio.get_running_loop().create_future()

    async def _rectangle(self, rect: Rect, encoding: int, damage: list[Rect]) -> int:
        """Read one rectangle, add it to ``damage``, and return how many pixels it painted."""
        if encoding in (EXTENDED_SIZE, DESKTOP_SIZE):
            await self._size_changed(rect, encoding)
            damage[:] = [Rect(0, 0, *self.screen.size)]
            return 0
        if encoding == LEDS:
            state = (await self._stream.read(1))[0]
            self.caps_lock, self.num_lock = bool(state & _CAPS_LOCK), bool(state & _NUM_LOCK)
            return 0
        await self._pixels(rect, encoding)
        damage.append(rect)
        if len(damage) > _DAMAGE:
            damage[:] = [bounding(damage)]
        return rect.width * rect.height

    async def _pixels(self, rect: Rect, encoding: int) -> None:
        screen = self.screen
        self._check_inside(rect)
        if encoding == COPY_RECT:
            x, y = struct.unpack(">HH", await self._stream.read(4))
            self._check_inside(Rect(x, y, rect.width, rect.height))
            for _ in screen.copy_within(rect, x, y):
                await self._budget.pace()
        elif encoding == RAW:
            for rows in screen.receive(rect):
                await self._stream.readinto(rows)
        else:
            raise DesktopLost(f"The VNC server used the encoding {encoding}, which was not requested.")

    def _check_inside(self, rect: Rect) -> None:
        size = self.screen.size
        if rect.x + rect.width > size.width or rect.y + rect.height > size.height:
            raise DesktopLost("The VNC server sent pixels outside the screen.")

    async def _size_changed(self, rect: Rect, encoding: int) -> None:
        if encoding == EXTENDED_SIZE:
            screens = await self._stream.read(4)
            layouts = await self._stream.read(16 * screens[0])
            self.can_resize = True
            if layouts:
                (self.layout_id,) = struct.unpack_from(">I", layouts)
            if rect.x == 1:  # the answer to our request; y is its status
                for future in self.resizes:
                    if not future.done():
                        future.set_result(rect.y)
                self.resizes.clear()
            if rect.y:
                return
        size = Size(rect.width, rect.height)
        self._budget.spend("changes of the screen's size", size != self.screen.size)
        if not is_acceptable(size, self._area):
            # Our screen stays as it is; the desktop is asked to return to that size.
            if not self.can_resize:
                raise DesktopLost(f"The desktop's screen became {size} pixels, more than this server accepts.")
            log.debug("screen too large, size restored: size=%s", size)
            self._oversized = True
            self._stream.write(set_size(self.layout_id, self.screen.size))
        elif size != self.screen.size or self._oversized:
            self._oversized = False
            self.screen.resize(size)
            self.request_update(incremental=False)

    async def _colour_map(self) -> None:
        _, _, count = struct.unpack(">BHH", await self._stream.read(5))
        await self._skip(6 * count)

    async def _cut_text(self) -> None:
        (length,) = struct.unpack(">xxxi", await self._stream.read(7))
        self._budget.spend("clipboard bytes", abs(length))
        if not -LARGEST <= length <= -4:  # plain Latin-1, which is not used, or longer than we accept
            await self._skip(abs(length))
            return
        (flags,) = struct.unpack(">I", await self._stream.read(4))
        data = bytearray(-length - 4)
        await self._stream.readinto(memoryview(data))
        await self.clipboard.received(flags, bytes(data))
        await self._stream.drain()

    async def _skip(self, count: int) -> None:
        while count:
            count -= len(await self._stream.read(min(count, 65536)))


_HANDLERS = {
    0: ServerReader._framebuffer_update,
    1: ServerReader._colour_map,
    3: ServerReader._cut_text,
}
