"""An RFB 3.8 client (RFC 6143 and TigerVNC's extensions) for a server on the same machine.

One reader task follows the stream and is never cancelled in the middle of a message; callers wait on futures that the
reader resolves. Pixels come raw, because over loopback nothing is cheaper; the Cursor encoding is not requested, so
the server draws the pointer into the pixels and screenshots show it.

The server is hostile: every length is checked before it is read, every kind of message has a rate (:mod:`.budget`),
what is written to a server that does not read ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from cambio_lab.errors import DesktopError, DesktopLost

from ..base import Size, VncEndpoint
from ..screen.framebuffer import Rect, Screen, bounding
from .authentication import authenticate, read_text
from .budget import Budget, LimitExceeded
from .clipboard import ENCODING as CLIPBOARD
from .clipboard import LARGEST, Clipboard
from .stream import ByteStream

log = logging.getLogger(__name__)

RAW, COPY_RECT, LAST_RECT, DESKTOP_SIZE, EXTENDED_SIZE, FENCE, LEDS = 0, 1, -224, -223, -308, -312, -261
# LEDS is requested because Xvnc otherwise guesses at the client's lock keys and presses Caps Lock for every capital.
_ENCODINGS = (COPY_RECT, RAW, LAST_RECT, EXTENDED_SIZE, DESKTOP_SIZE, FENCE, LEDS, CLIPBOARD)
_NUM_LOCK, _CAPS_LOCK = 2, 4
# 32 bits, depth 24, little endian, true colour, 255 each, shifts 16/8/0: what Xvnc itself holds, no conversion.
_PIXEL_FORMAT = struct.pack(">Bxxx4B3H3Bxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_BELL = 2
_FENCE_REQUEST, _FENCE_BLOCK_BEFORE = 1 << 31, 1
_RESIZE_ERRORS = {1: "resizing is not allowed", 2: "out of memory", 3: "this size is not possible"}
LARGEST_SIDE, LARGEST_AREA = 8192, 7680 * 4320
"""Pixels. A program in the desktop can make its X server claim any size, and screenshots of it use our memory."""
UNREQUESTED_AREA = 2560 * 1600
"""Pixels of a screen that grew without our request."""
REPAINTS = 4
"""How often one update may paint the whole screen."""
MESSAGE_SECONDS = 20.0
"""Seconds in which a message that began must end."""
_KEYS_AT_ONCE = 1000
_DAMAGE = 64
"""Rectangles of one update that are told apart."""

Updated = Callable[[list[Rect]], None]
T = TypeVar("T")


def is_acceptable(size: Size, area: int = LARGEST_AREA) -> bool:
    """Return whether the server holds and encodes a screen of this size."""
    return min(size) > 0 and max(size) <= LARGEST_SIDE and size.width * size.height <= area


class RfbClient:
    """One connection. :meth:`connect` makes it; ``closed`` resolves with the reason when it ends."""

    def __init__(
        self, stream: ByteStream, size: Size, name: str, screen: Screen | None, updated: Updated, budget: Budget
    ) -> None:
        self.name = name
        self.screen = screen or Screen(size)
        self.screen.resize(size)
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.caps_lock = self.num_lock = False
        self.clipboard = Clipboard(stream)
        self._stream = stream
        self._updated = updated
        self._budget = budget
        self._area = max(UNREQUESTED_AREA, size.width * size.height)
        self._requests = 0
        self._fences: dict[int, asyncio.Future[None]] = {}
        self._fence_count = 0
        self._can_fence = False
        self._resizes: list[asyncio.Future[int]] = []
        self._layout_id = 0
        self._can_resize = self._oversized = False
        self._message_ends = float("inf")
        self._whole = asyncio.Event()
        self._whole.set()
        self._reader: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(
        cls,
        endpoint: VncEndpoint,
        updated: Updated,
        *,
        screen: Screen | None = None,
        timeout: float = 10.0,
        budget: Budget | None = None,
    ) -> RfbClient:
        """Connect, authenticate, share the desktop with other viewers and start reading.

        ``updated`` is called after each framebuffer update with the damaged rectangles. Give the old ``screen`` and
        ``budget`` when reconnecting. Raises :class:`~cambio_lab.errors.DesktopLost`, also when the screen is too large.
        """
        budget = budget or Budget()
        stream = await ByteStream.connect(endpoint, timeout, budget)
        try:
            async with asyncio.timeout(timeout):
                await authenticate(stream, endpoint.password)
                stream.write(b"\x01")
                size = Size(*struct.unpack(">HH", (await stream.read(20))[:4]))
                if not is_acceptable(size):
                    raise DesktopLost(f"The desktop's screen of {size} pixels is larger than this server accepts.")
                name = await read_text(stream)
        except TimeoutError as error:
            stream.close()
            raise DesktopLost("The desktop's VNC server does not finish its handshake.") from error
        except BaseException:
            stream.close()
            raise
        client = cls(stream, size, name, screen, updated, budget)
        stream.write(_PIXEL_FORMAT + struct.pack(f">BxH{len(_ENCODINGS)}i", 2, len(_ENCODINGS), *_ENCODINGS))
        client._reader = asyncio.create_task(client._read(), name="rfb-reader")
        return client

    @property
    def usable(self) -> bool:
        """False as soon as the connection is known to be gone, before the reader has seen it."""
        return self._stream.open and not self.closed.done()

    # Output
    def request_update(self, *, incremental: bool = True) -> None:
        """Request one framebuffer update; an incremental one comes when something changes."""
        size = self.screen.size
        self._requests = min(self._requests + 1, 8)
        self._stream.write(struct.pack(">BB4H", 3, incremental, 0, 0, size.width, size.height))

    def pointer(self, x: int, y: int, buttons: int = 0) -> None:
        """Move to ``x``, ``y`` with ``buttons`` down (bit 0 left, 1 middle, 2 right, 3-6 wheel up/down/left/right)."""
        self._stream.write(struct.pack(">BBHH", 5, buttons, x, y))

    def key(self, keysym: int, down: bool) -> None:
        self._stream.write(struct.pack(">BBxxI", 4, down, keysym))

    def keys(self, keysyms: list[int]) -> None:
        """Press and release each of ``keysyms`` in order, in one write."""
        pack = struct.Struct(">BBxxI").pack
        self._stream.write(b"".join(pack(4, down, keysym) for keysym in keysyms for down in (1, 0)))

    async def type(self, keysyms: list[int]) -> None:
        """Press and release any number of keys, as fast as the server reads them."""
        for start in range(0, len(keysyms), _KEYS_AT_ONCE):
            self.keys(keysyms[start : start + _KEYS_AT_ONCE])
            await self._stream.drain()

    async def sync(self, timeout: float = 5.0) -> None:
        """Wait until the server has processed everything written so far (TigerVNC's fence)."""
        if not self._can_fence:
            return
        self._fence_count += 1
        number = self._fence_count
        future = self._fences[number] = asyncio.get_running_loop().create_future()
        flags = _FENCE_REQUEST | _FENCE_BLOCK_BEFORE
        try:
            self._stream.write(struct.pack(">BxxxIBI", 248, flags, 4, number))
            await self._answered(future, timeout)
        finally:
            self._fences.pop(number, None)

    async def resize(self, size: Size, timeout: float = 5.0) -> None:
        """Change the size of the desktop itself. :class:`~cambio_lab.errors.DesktopError` when the server refuses."""
        if not self._can_resize:
            raise DesktopError("This desktop cannot be resized.")
        if size == self.screen.size:
            return
        self._area = max(UNREQUESTED_AREA, size.width * size.height)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._resizes.append(future)
        self._request_size(size)
        try:
            status = await self._answered(future, timeout)
        finally:
            if future in self._resizes:
                self._resizes.remove(future)
        if status:
            raise DesktopError(f"The desktop was not resized: {_RESIZE_ERRORS.get(status, f'status {status}')}.")

    def _request_size(self, size: Size) -> None:
        layout = struct.pack(">IHHHHI", self._layout_id, 0, 0, size.width, size.height, 0)
        self._stream.write(struct.pack(">BxHHBx", 251, size.width, size.height, 1) + layout)

    async def whole(self) -> None:
        """Wait until the screen is not in the middle of an update."""
        await self._whole.wait()

    async def fetch_text(self, timeout: float = 3.0) -> str:
        """Return the desktop's clipboard, ours included."""
        text = self.clipboard.known()
        return text if text is not None else await self._answered(self.clipboard.request(), timeout)

    async def close(self) -> None:
        """Close the connection and wait for the reader to end."""
        self._stream.close()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _answered(self, future: asyncio.Future[T], timeout: float) -> T:
        either: list[asyncio.Future[Any]] = [future, self.closed]
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if self.closed.done():
            raise DesktopLost("The connection to the desktop was closed.")
        raise DesktopError("The desktop's VNC server does not answer.")

    # Input
    async def _read(self) -> None:
        reason: Exception | None = None
        self._budget.start_clock()
        self._watch_message()
        try:
            while True:
                await self._message()
        except DesktopLost as error:
            reason = error
        except Exception as error:
            log.exception("RFB reader failed")
            reason = error
        finally:
            self._budget.stop_clock()
            assert self._watchdog is not None
            self._watchdog.cancel()
            self._stream.close()
            self._whole.set()
            if not self.closed.done():
                self.closed.set_result(reason)

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
        if not self._requests:
            self._budget.spend("unrequested framebuffer updates")
        self._requests = max(0, self._requests - 1)
        damage: list[Rect] = []
        painted = 0
        self._whole.clear()
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">4Hi", await self._stream.read(12))
            if encoding == LAST_RECT:
                break
            rect = Rect(x, y, width, height)
            painted += await self._rectangle(rect, encoding, damage)
            if painted > REPAINTS * max(1, self.screen.size.width * self.screen.size.height):
                raise LimitExceeded("The desktop's VNC server sent too many pixels in one update.")
        self.screen.serial += 1
        self._whole.set()
        self._updated(damage)

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
            self._can_resize = True
            if layouts:
                (self._layout_id,) = struct.unpack_from(">I", layouts)
            if rect.x == 1:  # the answer to our request; y is its status
                self._resized(rect.y)
            if rect.y:
                return
        size = Size(rect.width, rect.height)
        self._budget.spend("changes of the screen's size", size != self.screen.size)
        if not is_acceptable(size, self._area):
            self._restore_size(size)
        elif size != self.screen.size or self._oversized:
            self._oversized = False
            self.screen.resize(size)
            self.request_update(incremental=False)

    def _resized(self, status: int) -> None:
        for future in self._resizes:
            if not future.done():
                future.set_result(status)
        self._resizes.clear()

    def _restore_size(self, size: Size) -> None:
        """Keep our screen as it is and request that the desktop returns to that size."""
        if not self._can_resize:
            raise DesktopLost(f"The desktop's screen became {size} pixels, more than this server accepts.")
        log.debug("screen too large, size restored: size=%s", size)
        self._oversized = True
        self._request_size(self.screen.size)

    async def _colour_map(self) -> None:
        _, _, count = struct.unpack(">BHH", await self._stream.read(5))
        await self._skip(6 * count)

    async def _fence(self) -> None:
        flags, length = struct.unpack(">xxxIB", await self._stream.read(8))
        payload = await self._stream.read(length)
        if flags & _FENCE_REQUEST:
            self._can_fence = True
            self._stream.write(struct.pack(">BxxxIB", 248, flags & 0x7, length) + payload)
            await self._stream.drain()
        elif length == 4:
            future = self._fences.get(struct.unpack(">I", payload)[0])
            if future is not None and not future.done():
                future.set_result(None)

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
    0: RfbClient._framebuffer_update,
    1: RfbClient._colour_map,
    3: RfbClient._cut_text,
    248: RfbClient._fence,
}
