"""The connection to a VNC server: exact reads without copies, and the handshake up to where both are authenticated.

The handshake is RFB 3.8 (RFC 6143, sections 7.1 and 7.2).
VNC's password scheme is DES with each key byte's bits reversed; only the first eight characters count.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from cambio_lab.errors import DesktopLost

from ..base import VncEndpoint
from . import Budget, LimitExceeded

_BUFFER = 256 * 1024
"""Bytes; twice as much passes a viewer's frames on no faster (benchmarks.vnc)."""
LARGEST_QUEUE = 4 * 1024 * 1024
"""Bytes that may wait for a server that does not read."""
DRAIN_SECONDS = 10.0


class ByteStream(asyncio.BufferedProtocol):
    """One reader, one writer, over TCP or a Unix socket.

    ``asyncio.StreamReader`` copies each byte three times; a 4 MB frame shows that. Here ``readinto`` hands the
    destination itself to the event loop, and only what arrives before it is asked for passes through the buffer.
    Reading yields to the loop as ``budget`` says, also while everything is there already.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        self.budget = budget or Budget()
        self._reads = 0
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._target: memoryview | None = None
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost: DesktopLost | None = None
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self.arrived: Callable[[memoryview], bool] | None = None
        """Called while a reader waits: returns whether it has used all that has arrived, so that none has to wake."""

    @classmethod
    async def connect(cls, endpoint: VncEndpoint, timeout: float = 5.0, budget: Budget | None = None) -> ByteStream:
        """Connect to ``endpoint``. :class:`~cambio_lab.errors.DesktopLost` when nothing listens."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                if endpoint.unix_path is not None:
                    _, stream = await loop.create_unix_connection(lambda: cls(budget), endpoint.unix_path)
                else:
                    assert endpoint.host is not None and endpoint.port is not None
                    _, stream = await loop.create_connection(lambda: cls(budget), endpoint.host, endpoint.port)
        except (OSError, TimeoutError) as error:
            raise DesktopLost("The desktop's VNC server does not answer.") from error
        return stream

    # Reading
    async def read(self, count: int) -> bytes:
        """Return exactly ``count`` bytes (at most :data:`_BUFFER`)."""
        self._reads += 1
        if not self._reads % 16:
            await self.budget.pace()
        while self._end - self._start < count:
            self._make_room(count)
            await self._wait(count)
        data = bytes(self._view[self._start : self._start + count])
        self._start += count
        self._resume()
        return data

    async def read_some(self) -> bytes:
        """Return what has arrived, at least one byte and at most :data:`_BUFFER`."""
        if self._start == self._end:
            self._make_room(1)
            await self._wait(1)
        return await self.read(self._end - self._start)

    def skip_byte(self, value: int, most: int) -> int:
        """Skip up to ``most`` bytes that have arrived and equal ``value``; return how many."""
        arrived = bytes(self._view[self._start : min(self._end, self._start + most)])
        count = len(arrived) - len(arrived.lstrip(bytes([value])))
        self._start += count
        self._resume()
        return count

    async def readinto(self, target: memoryview) -> None:
        """Fill ``target`` (bytes, contiguous) entirely."""
        await self.budget.pace()
        have = min(self._end - self._start, len(target))
        target[:have] = self._view[self._start : self._start + have]
        self._start += have
        self._resume()
        if have == len(target):
            return
        self._target = target[have:]
        try:
            await self._wait(0)
        finally:
            self._target = None

    async def _wait(self, wanted: int) -> None:
        if self._lost is not None:
            raise self._lost
        self._wanted = wanted
        self._waiter = asyncio.get_running_loop().create_future()
        running = self.budget.stop_clock()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.budget.start_clock(running)

    def _make_room(self, count: int) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + count > _BUFFER:
            held = self._end - self._start
            self._buffer[:held] = self._buffer[self._start : self._end]
            self._start, self._end = 0, held
        self._resume()

    def _resume(self) -> None:
        if self._paused and self._transport is not None and self._end - self._start < _BUFFER // 2:
            self._paused = False
            self._transport.resume_reading()

    # Writing
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue ``data``; see :meth:`drain`. :class:`~cambio_lab.errors.DesktopLost` when the connection is gone."""
        if self._lost is not None:
            raise self._lost
        if self._transport is not None:
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > LARGEST_QUEUE:
                raise self.fail(LimitExceeded("The desktop's VNC server does not read what it is sent."))

    async def drain(self) -> None:
        """Wait until the server has read enough; close the connection when that takes too long."""
        if self._writable.is_set() and self._lost is None:
            return
        running = self.budget.stop_clock()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._writable.wait()
        except TimeoutError:
            raise self.fail(LimitExceeded("The desktop's VNC server does not read what it is sent.")) from None
        finally:
            self.budget.start_clock(running)
        if self._lost is not None:
            raise self._lost

    def fail(self, reason: DesktopLost) -> DesktopLost:
        """Close the connection; every later call raises ``reason``, which is returned."""
        if self._lost is None:
            self._lost = reason
        self.close()
        self._end_wait(self._lost)
        return self._lost

    @property
    def full(self) -> bool:
        """Whether :meth:`drain` would wait."""
        return not self._writable.is_set()

    @property
    def open(self) -> bool:
        """Whether what is written now can still arrive."""
        return self._lost is None and self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio's side
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._target is not None and len(self._target):
            return self._target
        if self._end == _BUFFER and self._start:
            self._make_room(_BUFFER)
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self.budget.received(nbytes)
        if self._target is not None and len(self._target):
            self._target = self._target[nbytes:]
            if not len(self._target):
                self._wake()
            return
        self._end += nbytes
        if self.arrived is not None and self._waiter is not None and self.arrived(self._view[self._start : self._end]):
            self._start = self._end = 0
            return
        if self._target is None and self._wanted and self._end - self._start >= self._wanted:
            self._wake()
        if self._end == _BUFFER and self._start == 0 and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        elif self._end == _BUFFER:
            self._make_room(_BUFFER)

    def _wake(self) -> None:
        self._wanted = 0
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost is None:
            self._lost = DesktopLost("The connection to the desktop was closed.")
            self._lost.__cause__ = exc
        self._writable.set()
        self._end_wait(self._lost)

    def _end_wait(self, reason: DesktopLost) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(reason)


VERSION = b"RFB 003.008\n"
NONE, VNC_AUTH = 1, 2
LONGEST_TEXT = 4096
"""Bytes of a reason or a name that a server may send."""

_FILE_KEY = bytes([23, 82, 107, 6, 35, 78, 88, 7])
"""The fixed key under which ``vncpasswd`` files are obfuscated (it hides nothing, it is a format)."""


def answer(challenge: bytes, password: str) -> bytes:
    """The 16-byte answer to a server's 16-byte ``challenge``."""
    return bytes(_cipher(password.encode("latin-1")).encrypt(challenge))


def obfuscate(password: str) -> bytes:
    """The eight bytes of a ``vncpasswd`` file."""
    return bytes(_cipher(_FILE_KEY).encrypt(password.encode("latin-1")[:8].ljust(8, b"\0")))


def reveal(obfuscated: bytes) -> str:
    """The password in the eight bytes of a ``vncpasswd`` file."""
    return bytes(_cipher(_FILE_KEY).decrypt(obfuscated[:8])).rstrip(b"\0").decode("latin-1")


def _cipher(key: bytes) -> Any:
    from Crypto.Cipher import DES  # imported on first use: a third of this package's import time

    # The protocol fixes cipher and mode; the password is random and the port is on loopback.
    return DES.new(bytes(int(f"{byte:08b}"[::-1], 2) for byte in key[:8].ljust(8, b"\0")), DES.MODE_ECB)


async def authenticate(stream: ByteStream, password: str | None) -> None:
    """Agree on 3.8, answer VncAuth if a password is known (else None), and read the result.

    Raises :class:`~cambio_lab.errors.DesktopLost` with the server's reason when it refuses. The caller bounds the time.
    """
    if not (await stream.read(12)).startswith(b"RFB "):
        raise DesktopLost("What listens on the desktop's port is not a VNC server.")
    stream.write(VERSION)
    offered = await stream.read((await stream.read(1))[0])
    if not offered:
        raise DesktopLost(f"The VNC server refused: {await read_text(stream)}")
    if password and VNC_AUTH in offered:
        stream.write(bytes([VNC_AUTH]))
        stream.write(answer(await stream.read(16), password))
    elif NONE in offered:
        stream.write(bytes([NONE]))
    elif VNC_AUTH in offered:
        raise DesktopLost("VNC authentication is required but no password is set.")
    else:
        raise DesktopLost(f"Unsupported VNC security types {sorted(set(offered))}.")
    (result,) = struct.unpack(">I", await stream.read(4))
    if result != 0:
        raise DesktopLost(f"The VNC server refused the session's password: {await read_text(stream)}")


async def read_text(stream: ByteStream) -> str:
    """Read a length and so many bytes of text. :class:`~cambio_lab.errors.DesktopLost` when it is too long."""
    (length,) = struct.unpack(">I", await stream.read(4))
    if length > LONGEST_TEXT:
        raise DesktopLost(f"The VNC server sent a text of {length} bytes.")
    return (await stream.read(length)).decode("utf-8", "replace")
