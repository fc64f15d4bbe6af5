"""The server's side of a viewer: an authenticated RFB connection to a desktop, with back-pressure, for the VNC proxy.

The proxy speaks VncAuth to the desktop itself and offers the browser RFB without a password (:class:`Greeting`);
from the viewer's ClientInit on, bytes pass through unchanged.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from cambio_lab.errors import DesktopLost

from ..base import VncEndpoint
from .handshake import NONE, VERSION, VNC_AUTH
from .vncauth import answer

READ_SIZE = 512 * 1024
"""Bytes taken from the kernel at once: fewer, larger messages to the browser cost less of everything."""
HIGH_WATER = 1024 * 1024


class RfbUpstream(asyncio.BufferedProtocol):
    """:meth:`connect` returns when the desktop has accepted us and awaits ClientInit.

    ``on_data`` gets each piece as ``bytes`` on the event loop; ``on_close`` is called once, with the reason or
    ``None``. Call :meth:`pause` when the viewer is slow and :meth:`resume` when it has caught up: then the desktop's
    own kernel buffer fills, and Xvnc sends that viewer fewer frames.
    """

    def __init__(self) -> None:
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        self._arrived = asyncio.Event()
        self._on_data: Callable[[bytes], None] | None = None
        self._on_close: Callable[[Exception | None], None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False
        self._error: Exception | None = None
        self.closed = False

    @classmethod
    async def connect(cls, endpoint: VncEndpoint, *, timeout: float = 5.0) -> RfbUpstream:
        """Connected and authenticated. :class:`~cambio_lab.errors.DesktopLost` says why it cannot be."""
        loop = asyncio.get_running_loop()
        upstream: RfbUpstream | None = None
        try:
            async with asyncio.timeout(timeout):
                if endpoint.unix_path is not None:
                    _, upstream = await loop.create_unix_connection(cls, endpoint.unix_path)
                else:
                    assert endpoint.host is not None and endpoint.port is not None
                    _, upstream = await loop.create_connection(cls, endpoint.host, endpoint.port)
                await upstream._authenticate(endpoint.password)
        except (OSError, TimeoutError) as error:
            if upstream is not None:
                upstream.close()
            raise DesktopLost("The desktop's VNC server does not answer.") from error
        except BaseException:
            if upstream is not None:
                upstream.close()
            raise
        return upstream

    async def _authenticate(self, password: str | None) -> None:
        if not (await self._exactly(12)).startswith(b"RFB "):
            raise DesktopLost("What listens on the desktop's port is not a VNC server.")
        self.write(VERSION)
        offered = await self._exactly((await self._exactly(1))[0])
        if password is not None and VNC_AUTH in offered:
            self.write(bytes([VNC_AUTH]))
            self.write(answer(await self._exactly(16), password))
        elif NONE in offered:
            self.write(bytes([NONE]))
        else:
            raise DesktopLost("The VNC server wants a way of authentication that we do not have.")
        if struct.unpack(">I", await self._exactly(4))[0] != 0:
            raise DesktopLost("The VNC server refused the session's password.")

    async def _exactly(self, count: int) -> bytes:
        while len(self._early) < count:
            if self.closed:
                raise DesktopLost("The VNC server closed the connection.")
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._early[:count])
        del self._early[:count]
        return data

    def start(self, on_data: Callable[[bytes], None], on_close: Callable[[Exception | None], None]) -> None:
        """Begin to deliver; call once, right after :meth:`connect`."""
        self._on_data, self._on_close = on_data, on_close
        if self._early:
            early = bytes(self._early)
            self._early.clear()
            on_data(early)
        if self.closed:
            on_close(self._error)

    # To the desktop
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue ``data`` for the desktop; await :meth:`drain` after it. Nothing happens once it is closed."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    @property
    def full(self) -> bool:
        """Whether more than the high-water mark is queued: :meth:`drain` would wait."""
        return not self._writable.is_set()

    async def drain(self) -> None:
        """Wait while more than the high-water mark is queued."""
        await self._writable.wait()

    # From the desktop
    def pause(self) -> None:
        """Stop reading until :meth:`resume`; idempotent."""
        if not self._paused and self._transport is not None and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and not self.closed:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_WATER)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        # One copy, because the WebSocket layer keeps what it is given until it has been sent.
        if self._on_data is not None:
            self._on_data(bytes(self._view[:nbytes]))
        else:
            self._early += self._view[:nbytes]
            self._arrived.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed, self._error = True, exc
        self._writable.set()
        self._arrived.set()
        if self._on_close is not None:
            self._on_close(exc)


class Greeting:
    """What a viewer is told instead of the desktop's own handshake: RFB 3.8, no authentication, welcome.

    Send :attr:`first`, then :meth:`feed` the viewer's bytes; when :attr:`done`, the rest belongs to the desktop.
    """

    first = VERSION

    def __init__(self) -> None:
        self.done = False
        self._step = 0
        self._received = bytearray()

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """``(for the viewer, for the desktop)``. ``ValueError`` when the viewer does not speak RFB 3.8."""
        if self.done:
            return b"", data
        self._received += data
        reply = b""
        if self._step == 0 and len(self._received) >= 12:
            version = bytes(self._received[:12])
            del self._received[:12]
            if version != VERSION:
                raise ValueError("the viewer does not speak RFB 3.8")
            self._step, reply = 1, bytes([1, NONE])
        if self._step == 1 and self._received:
            choice = self._received.pop(0)
            if choice != NONE:
                raise ValueError("the viewer chose a security type that was not offered")
            self.done, reply = True, reply + b"\0\0\0\0"
        if not self.done:
            return reply, b""
        rest = bytes(self._received)
        self._received.clear()
        return reply, rest
