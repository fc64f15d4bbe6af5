"""An RFB 3.8 client (RFC 6143, TigerVNC's extensions) for a server on the same machine.

One reader task follows the stream (:mod:`.reader`) and is never cancelled in the middle of a message; callers wait on
futures that the reader resolves. Pixels come raw, because over loopback nothing is cheaper; the Cursor encoding is not
requested, so the server draws the pointer into the pixels and screenshots show it. What is written to a server that
does not read ends the connection.
"""

from __future__ import annotations

import asyncio
import struct
from itertools import count
from typing import Any, TypeVar

from cambio_lab.errors import DesktopError, DesktopLost

from ..base import Size, VncEndpoint
from ..screen import Rect, Screen
from . import FENCE_BLOCK_BEFORE, FENCE_REQUEST, FIRST_MESSAGES, Budget, fence, set_size
from .reader import ServerReader, Updated, is_acceptable
from .stream import ByteStream, authenticate, read_text

_RESIZE_ERRORS = {1: "resizing is not allowed", 2: "out of memory", 3: "this size is not possible"}
_KEYS_AT_ONCE = 1000
_KEY = struct.Struct(">BBxxI")
CONNECT_SECONDS = 10.0
"""Seconds for the connection, and again for its handshake."""
PIXEL = Rect(0, 0, 1, 1)
T = TypeVar("T")


class RfbClient(ServerReader):
    """One connection. :meth:`connect` makes it; ``closed`` resolves with the reason when it ends."""

    def __init__(self, stream: ByteStream, screen: Screen, updated: Updated) -> None:
        super().__init__(stream, screen, updated)
        self._numbers = count(1)
        self.closed = asyncio.create_task(self.run(), name="rfb-reader")

    @classmethod
    async def connect(
        cls, endpoint: VncEndpoint, updated: Updated, screen: Screen | None = None, budget: Budget | None = None
    ) -> RfbClient:
        """Connect, authenticate, share the desktop with other viewers and start reading.

        ``updated`` is called after each framebuffer update with the damaged rectangles. Give the old ``screen`` and
        ``budget`` when reconnecting. Raises :class:`~cambio_lab.errors.DesktopLost`, also when the screen is too large.
        """
        stream = await ByteStream.connect(endpoint, CONNECT_SECONDS, budget)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await authenticate(stream, endpoint.password)
                stream.write(b"\x01")
                size = Size(*struct.unpack(">HH", (await stream.read(20))[:4]))
                if not is_acceptable(size):
                    raise DesktopLost(f"The desktop's screen of {size} pixels is larger than this server accepts.")
                await read_text(stream)  # the desktop's name
                stream.write(FIRST_MESSAGES)
            screen = screen or Screen(size)
            screen.resize(size)
        except BaseException as error:
            stream.close()
            if isinstance(error, TimeoutError):
                raise DesktopLost("The desktop's VNC server does not finish its handshake.") from error
            raise
        return cls(stream, screen, updated)

    @property
    def usable(self) -> bool:
        """False as soon as the connection is known to be gone, before the reader has seen it."""
        return self._stream.open and not self.closed.done()

    def pointer(self, x: int, y: int, buttons: int = 0) -> None:
        """Move to ``x``, ``y`` with ``buttons`` down (bit 0 left, 1 middle, 2 right, 3-6 wheel up/down/left/right)."""
        self._stream.write(struct.pack(">BBHH", 5, buttons, x, y))

    def request_pixel(self) -> None:
        """Request what any server answers at once."""
        self.requests += 1
        self._stream.write(struct.pack(">BB4H", 3, False, *PIXEL))

    def give_up(self, reason: str) -> None:
        """End the connection, as if the server had."""
        self._stream.fail(DesktopLost(reason))

    def key(self, keysym: int, down: bool) -> None:
        self._stream.write(_KEY.pack(4, down, keysym))

    def keys(self, keysyms: list[int]) -> None:
        """Press and release each of ``keysyms`` in order, in one write."""
        self._stream.write(b"".join(_KEY.pack(4, down, keysym) for keysym in keysyms for down in (True, False)))

    async def type(self, keysyms: list[int]) -> None:
        """Press and release any number of keys, as fast as the server reads them."""
        for start in range(0, len(keysyms), _KEYS_AT_ONCE):
            self.keys(keysyms[start : start + _KEYS_AT_ONCE])
            await self._stream.drain()

    async def sync(self) -> None:
        """Wait until the server has processed everything written so far (TigerVNC's fence)."""
        if not self.can_fence:
            return
        number = next(self._numbers)
        future = self.fences[number] = asyncio.get_running_loop().create_future()
        try:
            self._stream.write(fence(FENCE_REQUEST | FENCE_BLOCK_BEFORE, struct.pack(">I", number)))
            await self._answered(future)
        finally:
            self.fences.pop(number, None)

    async def resize(self, size: Size) -> None:
        """Change the size of the desktop itself. :class:`~cambio_lab.errors.DesktopError` when the server refuses."""
        if not self.can_resize:
            raise DesktopError("This desktop cannot be resized.")
        if size == self.screen.size:
            return
        self.allow(size)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.resizes.add(future)
        self._stream.write(set_size(self.layout_id, size))
        try:
            status = await self._answered(future)
        finally:
            self.resizes.discard(future)
        if status:
            raise DesktopError(f"The desktop was not resized: {_RESIZE_ERRORS.get(status, f'status {status}')}.")

    async def fetch_text(self) -> str:
        """Return the desktop's clipboard, ours included."""
        await self.clipboard.settled()
        text = self.clipboard.known()
        return text if text is not None else await self._answered(self.clipboard.request(), 3.0)

    async def close(self) -> None:
        """Close the connection and wait for the reader to end."""
        self._stream.close()
        await asyncio.wait([self.closed])

    async def _answered(self, future: asyncio.Future[T], timeout: float = 5.0) -> T:
        either: list[asyncio.Future[Any]] = [future, self.closed]
        await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        if self.closed.done():
            raise DesktopLost("The connection to the desktop was closed.")
        raise DesktopError("The desktop's VNC server does not answer.")
