"""An RFB 3.8 client (RFC 6143 and TigerVNC's extensions) for a server on the same machine.

One reader task follows the stream and is never cancelled in the middle of a message: whoever wants something waits
on a future that the reader resolves. Pixels come raw, because over loopback nothing is cheaper; the Cursor encoding
is not asked for, so the server draws the pointer into the pixels and pictures show it.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from cambio_lab.errors import DesktopError, DesktopLost

from ..base import Size, VncEndpoint
from ..screen.framebuffer import Rect, Screen
from . import clipboard
from .handshake import authenticate
from .stream import ByteStream

log = logging.getLogger(__name__)

RAW, COPY_RECT, LAST_RECT, DESKTOP_SIZE, EXTENDED_SIZE, FENCE, LEDS = 0, 1, -224, -223, -308, -312, -261
# LEDS is asked for because Xvnc otherwise guesses at the client's lock keys and presses Caps Lock for every capital.
_ENCODINGS = (COPY_RECT, RAW, LAST_RECT, EXTENDED_SIZE, DESKTOP_SIZE, FENCE, LEDS, clipboard.ENCODING)
_NUM_LOCK, _CAPS_LOCK = 2, 4
# 32 bits, depth 24, little endian, true colour, 255 each, shifts 16/8/0: what Xvnc itself holds, so nobody converts.
_PIXEL_FORMAT = struct.pack(">Bxxx4B3H3Bxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_FENCE_REQUEST, _FENCE_BLOCK_BEFORE = 1 << 31, 1
_RESIZE_ERRORS = {1: "resizing is not allowed", 2: "out of memory", 3: "this size is not possible"}
LARGEST_SIDE, LARGEST_AREA = 8192, 7680 * 4320
"""Pixels. A program in the desktop can make its X server claim any size, and pictures of it are memory of ours."""

Updated = Callable[[list[Rect]], None]
T = TypeVar("T")


def bearable(size: Size) -> bool:
    """Whether a screen of this size is one that we hold and encode."""
    return min(size) > 0 and max(size) <= LARGEST_SIDE and size.width * size.height <= LARGEST_AREA


class RfbClient:
    """One connection. :meth:`connect` makes it; ``closed`` resolves with the reason when it ends."""

    def __init__(self, stream: ByteStream, size: Size, name: str, screen: Screen | None, updated: Updated) -> None:
        self.name = name
        self.screen = screen or Screen(size)
        self.screen.resize(size)
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._updated = updated
        self._fences: dict[int, asyncio.Future[None]] = {}
        self._fence_count = 0
        self._can_fence = False
        self._resizes: list[asyncio.Future[int]] = []
        self._layout_id = 0
        self.caps_lock = self.num_lock = False
        self._can_resize = self._oversized = False
        self._offered: str | None = None
        self._their_text: str | None = ""
        self._text_waiters: list[asyncio.Future[str]] = []
        self._scratch = bytearray()
        self._whole = asyncio.Event()
        self._whole.set()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls, endpoint: VncEndpoint, updated: Updated, *, screen: Screen | None = None, timeout: float = 10.0
    ) -> RfbClient:
        """Connect, authenticate, share the desktop with other viewers and start reading.

        ``updated`` is called after each framebuffer update with the damaged rectangles. Give the old ``screen`` when
        reconnecting. Raises :class:`~cambio_lab.errors.DesktopLost`, also when the screen is too large for us.
        """
        stream = await ByteStream.connect(endpoint, timeout)
        try:
            async with asyncio.timeout(timeout):
                await authenticate(stream, endpoint.password)
                stream.write(b"\x01")
                size = Size(*struct.unpack(">HH", (await stream.read(20))[:4]))
                if not bearable(size):
                    raise DesktopLost(f"The desktop's screen of {size} pixels is larger than this server takes.")
                name = await stream.read(struct.unpack(">I", await stream.read(4))[0])
        except TimeoutError as error:
            stream.close()
            raise DesktopLost("The desktop's VNC server does not finish its greeting.") from error
        except BaseException:
            stream.close()
            raise
        client = cls(stream, size, name.decode("utf-8", "replace"), screen, updated)
        encodings = struct.pack(f">BxH{len(_ENCODINGS)}i", 2, len(_ENCODINGS), *_ENCODINGS)
        stream.write(_PIXEL_FORMAT + encodings)
        client._reader = asyncio.create_task(client._read(), name="rfb-reader")
        return client

    @property
    def usable(self) -> bool:
        """False as soon as the connection is known to be gone, before the reader has seen it."""
        return self._stream.open and not self.closed.done()

    # Output
    def request_update(self, *, incremental: bool = True) -> None:
        """Ask for one framebuffer update; an incremental one comes when something changes."""
        size = self.screen.size
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

    async def drain(self) -> None:
        """Wait until the server has taken enough of what was written."""
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
        """Change the size of the desktop itself. :class:`~cambio_lab.errors.DesktopError` when the server will not."""
        if not self._can_resize:
            raise DesktopError("This desktop cannot be resized.")
        if size == self.screen.size:
            return
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._resizes.append(future)
        self._ask_for(size)
        status = await self._answered(future, timeout)
        if status:
            raise DesktopError(f"The desktop was not resized: {_RESIZE_ERRORS.get(status, f'status {status}')}.")

    def _ask_for(self, size: Size) -> None:
        layout = struct.pack(">IHHHHI", self._layout_id, 0, 0, size.width, size.height, 0)
        self._stream.write(struct.pack(">BxHHBx", 251, size.width, size.height, 1) + layout)

    async def whole(self) -> None:
        """Wait until the screen is not in the middle of an update."""
        await self._whole.wait()

    # Clipboard
    def offer_text(self, text: str) -> None:
        """Make ``text`` the desktop's clipboard; it travels when a program pastes."""
        self._offered = text
        self._stream.write(clipboard.notify(True))

    async def fetch_text(self, timeout: float = 3.0) -> str:
        """The desktop's clipboard, ours included."""
        if self._offered is not None:
            return self._offered
        if self._their_text is not None:
            return self._their_text
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._text_waiters.append(future)
        self._stream.write(clipboard.request())
        return await self._answered(future, timeout)

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
        try:
            while True:
                kind = (await self._stream.read(1))[0]
                handler = _HANDLERS.get(kind)
                if handler is None:
                    raise DesktopLost(f"The VNC server sent a message of unknown kind {kind}.")
                await handler(self)
        except DesktopLost as error:
            reason = error
        except Exception as error:
            log.exception("the RFB reader failed")
            reason = error
        finally:
            self._stream.close()
            self._whole.set()
            if not self.closed.done():
                self.closed.set_result(reason)

    async def _framebuffer_update(self) -> None:
        _, count = struct.unpack(">BH", await self._stream.read(3))
        damage: list[Rect] = []
        self._whole.clear()
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">4Hi", await self._stream.read(12))
            rect = Rect(x, y, width, height)
            if encoding == LAST_RECT:
                break
            if encoding in (EXTENDED_SIZE, DESKTOP_SIZE):
                await self._sized(rect, encoding)
                damage.append(Rect(0, 0, *self.screen.size))
                continue
            if encoding == LEDS:
                state = (await self._stream.read(1))[0]
                self.caps_lock, self.num_lock = bool(state & _CAPS_LOCK), bool(state & _NUM_LOCK)
                continue
            await self._pixels(rect, encoding)
            damage.append(rect)
        self.screen.serial += 1
        self._whole.set()
        self._updated(damage)

    async def _pixels(self, rect: Rect, encoding: int) -> None:
        screen = self.screen
        if rect.x + rect.width > screen.size.width or rect.y + rect.height > screen.size.height:
            raise DesktopLost("The VNC server sent pixels outside the screen.")
        if encoding == COPY_RECT:
            screen.copy_within(rect, *struct.unpack(">HH", await self._stream.read(4)))
            return
        if encoding != RAW:
            raise DesktopLost(f"The VNC server used the encoding {encoding}, which was not asked for.")
        if (rows := screen.rows(rect)) is not None:
            await self._stream.readinto(rows)
            return
        count = rect.width * rect.height * 4
        if len(self._scratch) < count:
            self._scratch = bytearray(count)
        await self._stream.readinto(memoryview(self._scratch)[:count])
        screen.put(rect, self._scratch)

    async def _sized(self, rect: Rect, encoding: int) -> None:
        if encoding == EXTENDED_SIZE:
            screens = await self._stream.read(4)
            layouts = [await self._stream.read(16) for _ in range(screens[0])]
            self._can_resize = True
            if layouts:
                (self._layout_id,) = struct.unpack_from(">I", layouts[0])
            # x says who asked (1: we did), y how that went.
            if rect.x == 1:
                for future in self._resizes:
                    if not future.done():
                        future.set_result(rect.y)
                self._resizes.clear()
            if rect.y:
                return
        size = Size(rect.width, rect.height)
        if not bearable(size):
            self._set_back(size)
        elif size != self.screen.size or self._oversized:
            self._oversized = False
            self.screen.resize(size)
            self.request_update(incremental=False)

    def _set_back(self, size: Size) -> None:
        """A program made the screen larger than we take: ours stays as it is, and the desktop is to follow."""
        if not self._can_resize:
            raise DesktopLost(f"The desktop's screen became {size} pixels, more than this server takes.")
        log.info("a desktop's screen became %s, more than this server takes: it is set back", size)
        self._oversized = True
        self._ask_for(self.screen.size)

    async def _colour_map(self) -> None:
        _, _, count = struct.unpack(">BHH", await self._stream.read(5))
        await self._stream.read(6 * count)

    async def _bell(self) -> None:
        """Nobody hears it."""

    async def _fence(self) -> None:
        flags, length = struct.unpack(">xxxIB", await self._stream.read(8))
        payload = await self._stream.read(length)
        if flags & _FENCE_REQUEST:
            self._can_fence = True
            self._stream.write(struct.pack(">BxxxIB", 248, flags & 0x7, length) + payload)
        elif length == 4:
            future = self._fences.get(struct.unpack(">I", payload)[0])
            if future is not None and not future.done():
                future.set_result(None)

    async def _cut_text(self) -> None:
        (length,) = struct.unpack(">xxxi", await self._stream.read(7))
        if length >= 0:
            await self._skip(length)
            return
        (flags,) = struct.unpack(">I", await self._stream.read(4))
        size = -length - 4
        if size > clipboard.LARGEST:
            await self._skip(size)
            return
        data = bytearray(size)
        await self._stream.readinto(memoryview(data))
        self._clipboard_action(flags, bytes(data))

    def _clipboard_action(self, flags: int, data: bytes) -> None:
        if flags & clipboard.CAPS:
            self._stream.write(clipboard.caps())
        elif flags & clipboard.NOTIFY:
            self._offered = None
            self._their_text = None if flags & clipboard.TEXT else ""
        elif flags & clipboard.PEEK:
            self._stream.write(clipboard.notify(self._offered is not None))
        elif flags & clipboard.REQUEST and flags & clipboard.TEXT:
            self._stream.write(clipboard.provide(self._offered or ""))
        elif flags & clipboard.PROVIDE and flags & clipboard.TEXT:
            self._provided(data)

    def _provided(self, data: bytes) -> None:
        waiters, self._text_waiters = self._text_waiters, []
        try:
            text = self._their_text = clipboard.parse_provided(data)
        except ValueError as error:
            failure = DesktopError(f"The desktop's clipboard cannot be read: {error}.")
            for future in waiters:
                if not future.done():
                    future.set_exception(failure)
            return
        for future in waiters:
            if not future.done():
                future.set_result(text)

    async def _skip(self, count: int) -> None:
        while count:
            count -= len(await self._stream.read(min(count, 65536)))


_HANDLERS = {
    0: RfbClient._framebuffer_update,
    1: RfbClient._colour_map,
    2: RfbClient._bell,
    3: RfbClient._cut_text,
    248: RfbClient._fence,
}
