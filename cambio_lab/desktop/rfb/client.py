"""An RFB 3.8 client (RFC 6143, TigerVNC's extensions) for a server on the same machine.

One reader task follows the stream (:mod:`.reader`) and is never cancelled in the middle of a message; callers wait on
futures that the reader resolves. Pixels come raw, because over loopback nothing is cheaper; the Cursor encoding is not
requested, so the server draws the pointer into the pixels and screenshots show it. What is written to a server that
does not read ends the connection.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from cambio_lab.errors import DesktopError, DesktopLost

from ..base import Settled, Size, VncEndpoint
from ..screen import Rect, Screen
from ..settle import Watch
from . import FIRST_MESSAGES, Bucket, Budget, LimitExceeded, set_size
from .reader import ServerReader, Updated, is_acceptable
from .stream import ByteStream, authenticate, read_text

_RESIZE_ERRORS = {1: "resizing is not allowed", 2: "out of memory", 3: "this size is not possible"}
_KEYS_AT_ONCE = 1000
_KEY = struct.Struct(">BBxxI")
CONNECT_SECONDS = 10.0
"""Seconds for the connection, and again for its handshake."""
_PIXEL = Rect(0, 0, 1, 1)
_STILL, _ANSWER = 3.0, 4.0
"""Seconds without an update after which a server is asked for a pixel, and for its answer."""
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each attempt to reconnect to a desktop that still lives."""
_SILENT = "The desktop's VNC server sends no framebuffer update."
T = TypeVar("T")
log = logging.getLogger(__name__)


class RfbClient(ServerReader):
    """One connection. :meth:`connect` makes it; ``closed`` resolves with the reason when it ends."""

    def __init__(self, stream: ByteStream, screen: Screen, updated: Updated) -> None:
        super().__init__(stream, screen, updated)
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

    async def pixel(self, timeout: float = 5.0) -> None:
        """Request what any server answers at once, and wait for the next update. ``DesktopError`` when none comes."""
        self.requests += 1
        self._stream.write(struct.pack(">BB4H", 3, False, *_PIXEL))
        await self._answered(self.next_update, timeout)

    async def sync(self) -> None:
        """Wait until the server has processed everything written so far."""
        await self.pixel()  # answered perhaps by an update that was on its way
        await self.pixel()

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


class Connection:
    """``alive`` is asked when the connection drops: is there still a desktop to reconnect to? ``cause``: why not?"""

    def __init__(
        self,
        endpoint: VncEndpoint,
        alive: Callable[[], Awaitable[bool]],
        cause: Callable[[], Awaitable[str]],
        *,
        quiet: float,
        cap: float,
    ) -> None:
        self._endpoint, self._alive, self._cause = endpoint, alive, cause
        self._client: RfbClient | None = None
        self._closed = False
        self._silent = False
        """We gave a connection up ourselves: the first attempt needs no engine that says that the desktop lives."""
        self._budget = Budget()
        self._allowed = Bucket(1 / 30, 20)  # attempts to reconnect: per second, and at once
        self._violations = Bucket(1 / 600, 1)  # of a limit, before the desktop is lost
        self._failure = self._complaint = ""
        self._ready = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._reason: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.screen = Screen(Size(1, 1))
        self.watch = Watch(self._request, self.screen.size, quiet, cap)
        self.reconnects = 0

    async def open(self) -> None:
        """Connect for the first time and receive the whole screen once."""
        await self._connect()
        self._supervisor = asyncio.create_task(self._supervise(), name="rfb-supervisor")

    async def _connect(self) -> None:
        client = self._client = await RfbClient.connect(self._endpoint, self._updated, self.screen, self._budget)
        try:
            client.request_update(incremental=False)
            self.watch.connected()
            # A screenshot before the first update would be black.
            either: list[asyncio.Future[Any]] = [client.next_update, client.closed]
            await asyncio.wait(either, timeout=15.0, return_when=asyncio.FIRST_COMPLETED)
            if not either[0].done():
                raise DesktopLost(_SILENT)
        except BaseException:
            await client.close()
            raise
        self._ready.set()

    def _request(self) -> None:
        if self._client is not None and self._client.usable:
            self._client.request_update()

    def _updated(self, damage: list[Rect]) -> None:
        self.watch.resize(self.screen.size)
        self.watch.updated([rect for rect in damage if rect != _PIXEL])

    async def _supervise(self) -> None:
        while True:
            assert self._client is not None
            await asyncio.wait([self._client.closed])
            self._ready.clear()
            self._note_failure(self._client.closed.result())
            if not await self._reconnect():
                break
        self._reason.set_result(self._failure or self._complaint or await self._cause())
        self._ready.set()

    def _note_failure(self, error: Exception | None) -> None:
        if isinstance(error, DesktopLost):
            self._complaint = str(error)
        if isinstance(error, LimitExceeded) and self._violations.take():
            self._failure = str(error)
            log.warning("desktop lost: %s", error)

    async def _reconnect(self) -> bool:
        """Connect again, with growing pauses; return false when the desktop is lost."""
        try:
            async with asyncio.timeout(20.0):
                for pause in _PAUSES:
                    await asyncio.sleep(pause)
                    if self._failure or self._allowed.take():
                        return False
                    # What its VNC server did is the reason only while the desktop itself lives.
                    complaint, self._complaint = self._complaint, ""
                    if not self._silent and not await self._alive():
                        return False
                    self._complaint, self._silent = complaint, False
                    try:
                        await self._connect()
                    except DesktopLost as error:
                        self._note_failure(error)
                        log.info("reconnecting to a desktop failed: %s", error)
                    except Exception:  # of a hostile desktop: without a supervisor every action would wait
                        log.exception("reconnecting to a desktop failed")
                    else:
                        self.reconnects += 1
                        log.info("the connection to a desktop was dropped and restored")
                        return True
        except TimeoutError:
            log.info("reconnecting to a desktop timed out")
        return False

    @property
    def connected(self) -> bool:
        """Whether the desktop answered last."""
        return self._client is not None and self._client.usable and not self._reason.done()

    async def client(self) -> RfbClient:
        """The living client; waits while it reconnects. :class:`~cambio_lab.errors.DesktopLost` when that is over."""
        while True:
            await self._ready.wait()
            if self._closed:
                raise DesktopLost("The desktop was closed.")
            if self._reason.done():
                raise DesktopLost(self._reason.result())
            assert self._client is not None
            if self._client.usable:
                return self._client
            await asyncio.sleep(0.001)  # the supervisor is about to notice

    async def settle(self, expect: float = 0.0, calm: Callable[[], None] | None = None) -> Settled:
        """Wait until the screen is quiet and not in the middle of an update; see :meth:`Watch.settle`."""
        client = await self.client()
        if self.watch.still >= _STILL:
            # Xvnc sometimes sent no more updates to a client that was idle for a minute, though it answered the rest.
            try:
                await client.pixel(_ANSWER)
            except DesktopLost:
                pass  # the supervisor reconnects
            except DesktopError:
                self._silent = True
                client.give_up(_SILENT)
            client = await self.client()
        settled = await self.watch.settle(expect=expect, calm=calm)
        await client.whole.wait()
        return settled

    async def lost(self) -> str:
        """Wait until the desktop is gone for good; the reason."""
        return await asyncio.shield(self._reason)

    async def close(self) -> None:
        self._closed = True
        self._ready.set()  # callers that wait for a client get their error
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        self.watch.close()
        if self._client is not None:
            await self._client.close()
