"""RFB: messages that this client sends, the clipboard, and what one desktop may cost the server.

Siblings: the VNC client in the server process, and the filters between a desktop and its viewers.

The clipboard is TigerVNC's extended one, UTF-8 both ways, sent only when a program pastes: ``ClientCutText`` and
``ServerCutText`` whose length is negative, four bytes of flags (which formats, which action), then the action's data.
Text is length-prefixed, NUL-terminated, CRLF-ended lines under zlib.

A program of the desktop can answer on the VNC port instead of Xvnc, so the stream is hostile. The loop's time is shared
out (a desktop that wants more waits); messages that no honest server sends so often end the connection.
"""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING

from cambio_lab.errors import DesktopError, DesktopLost

from ..base import Size

if TYPE_CHECKING:
    from .stream import ByteStream

CLIPBOARD = -0x3F5E1A32  # 0xC0A1E5CE as a signed number

TEXT = 1 << 0
CAPS, REQUEST, PEEK, NOTIFY, PROVIDE = (1 << bit for bit in range(24, 29))
LARGEST = 2 * 1024 * 1024
"""Bytes of text accepted from a desktop, and of a message that carries it: 4 KB can inflate to 4 MB."""
KEEPER_SECONDS = 0.5
"""The desktop's clipboard keeper takes over what a program that has just ended had copied within this time."""


def cut_text(data: bytes) -> bytes:
    """Return a client's cut-text message that carries ``data`` in the extended way."""
    return struct.pack(">Bxxxi", 6, -len(data)) + data


_OUR_CAPS = cut_text(struct.pack(">II", CAPS | REQUEST | PEEK | NOTIFY | PROVIDE | TEXT, 0))
"""What we can do: text up to ``LARGEST`` bytes, announced rather than sent unrequested."""
_TEXT_REQUEST = cut_text(struct.pack(">I", REQUEST | TEXT))


def notify(has_text: bool) -> bytes:
    return cut_text(struct.pack(">I", NOTIFY | (TEXT if has_text else 0)))


def provide(text: str) -> bytes:
    """Return the message that carries ``text``. CPU work: call it in a thread."""
    body = text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8", "replace") + b"\0"
    return cut_text(struct.pack(">I", PROVIDE | TEXT) + zlib.compress(struct.pack(">I", len(body)) + body))


def parse_provided(data: bytes) -> str:
    """Return the text of a ``provide`` action. CPU work: call it in a thread.

    Raises ``ValueError`` when it is damaged or longer than :data:`LARGEST`.
    """
    try:
        body = zlib.decompressobj().decompress(data, LARGEST + 5)
    except zlib.error as error:
        raise ValueError("the clipboard's text is damaged") from error
    if len(body) < 4:
        raise ValueError("the clipboard's text is cut off")
    (length,) = struct.unpack_from(">I", body)
    if length > LARGEST:
        raise ValueError("the clipboard's text is too long")
    return body[4 : 4 + length].rstrip(b"\0").decode("utf-8", "replace").replace("\r\n", "\n")


class Clipboard:
    """The text clipboard that a client and its server share. Text that was not requested is not even inflated."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._offered: tuple[str, bytes] | None = None
        self._received: str | None = ""
        self._waiting: asyncio.Future[str] | None = None
        self._emptied = float("-inf")
        self._filled = asyncio.Event()

    async def offer(self, text: str) -> None:
        """Make ``text`` the desktop's clipboard; it travels when a program pastes."""
        self._offered = text, await asyncio.to_thread(provide, text)
        self._stream.write(notify(True))

    def known(self) -> str | None:
        """Return the desktop's clipboard, ours included, or ``None`` when the server has to be asked."""
        return self._offered[0] if self._offered is not None else self._received

    async def settled(self) -> None:
        """Wait a moment for the keeper where the program that owned the text has just ended."""
        left = self._emptied + KEEPER_SECONDS - asyncio.get_running_loop().time()
        if self.known() == "" and left > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._filled.wait()

    def request(self) -> asyncio.Future[str]:
        """Ask the server for its text; the future may fail with :class:`~cambio_lab.errors.DesktopError`."""
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.get_running_loop().create_future()
            self._stream.write(_TEXT_REQUEST)
        return self._waiting

    async def received(self, flags: int, data: bytes) -> None:
        """Handle one extended message of the server; ``data`` follows the flags."""
        if flags & CAPS:
            self._stream.write(_OUR_CAPS)
        elif flags & NOTIFY:
            self._offered = None
            self._received = None if flags & TEXT else ""
            self._owner_changed(bool(flags & TEXT))
        elif flags & PEEK:
            self._stream.write(notify(self._offered is not None))
        elif flags & REQUEST and flags & TEXT:
            self._stream.write(self._offered[1] if self._offered is not None else provide(""))
        elif flags & PROVIDE and flags & TEXT and self._waiting is not None and not self._waiting.done():
            await self._provided(data, self._waiting)

    def _owner_changed(self, has_text: bool) -> None:
        """A question to an owner that has gone is never answered: ask the next one, if it comes in time."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting if self._waiting is not None and not self._waiting.done() else None
        if has_text:
            self._filled.set()
            if waiting is not None:
                self._stream.write(_TEXT_REQUEST)
            return
        self._filled.clear()
        self._emptied = loop.time()
        if waiting is not None:
            loop.call_later(KEEPER_SECONDS, self._still_empty, waiting)

    def _still_empty(self, waiting: asyncio.Future[str]) -> None:
        if not waiting.done() and self.known() == "":
            waiting.set_result("")

    async def _provided(self, data: bytes, waiting: asyncio.Future[str]) -> None:
        try:
            text = await asyncio.to_thread(parse_provided, data)
        except ValueError as error:
            if not waiting.done():
                waiting.set_exception(DesktopError(f"The desktop's clipboard cannot be read: {error}."))
            return
        if not waiting.done():
            self._received = text
            waiting.set_result(text)


RAW, COPY_RECT, LAST_RECT, DESKTOP_SIZE, EXTENDED_SIZE, FENCE, LEDS = 0, 1, -224, -223, -308, -312, -261
# No FENCE: with it TigerVNC holds updates back until it believes that the network is free, by the wall clock.
# LEDS is requested because Xvnc otherwise guesses at the client's lock keys and presses Caps Lock for every capital.
_ENCODINGS = (COPY_RECT, RAW, LAST_RECT, EXTENDED_SIZE, DESKTOP_SIZE, LEDS, CLIPBOARD)
# 32 bits, depth 24, little endian, true colour, 255 each, shifts 16/8/0: what Xvnc itself holds, no conversion.
_PIXEL_FORMAT = struct.pack(">Bxxx4B3H3Bxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
FIRST_MESSAGES = _PIXEL_FORMAT + struct.pack(f">BxH{len(_ENCODINGS)}i", 2, len(_ENCODINGS), *_ENCODINGS)
"""Set pixel format and encodings."""


def set_size(layout_id: int, size: Size) -> bytes:
    """Request that the desktop itself becomes ``size``, with one screen."""
    layout = struct.pack(">IHHHHI", layout_id, 0, 0, size.width, size.height, 0)
    return struct.pack(">BxHHBx", 251, size.width, size.height, 1) + layout


SLICE = 0.001
"""Seconds of CPU time after which a reader yields to the event loop."""
SHARE, RESERVE = 0.25, 0.05
"""CPU seconds per second for one desktop, and how many it may save up."""
SECONDS_PER_BYTE = 0.25e-9
"""CPU seconds of the loop that one byte received costs the kernel and asyncio (4 MB: 1 ms)."""
LIMITS = {
    "framebuffer updates": (200, 2000),
    "unrequested framebuffer updates": (20, 200),
    "bells": (2000, 20_000),
    "messages": (500, 5000),
    "changes of the screen's size": (5, 50),
    "clipboard bytes": (1 << 20, 32 << 20),
}
"""Per second, and at once. Full-screen video is 60 updates a second, each requested."""


class LimitExceeded(DesktopLost):
    """The desktop's VNC server sent more than an honest one does."""


class Bucket:
    """A token bucket: ``rate`` tokens a second, at most ``burst`` saved."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, time.monotonic()

    def take(self, amount: float = 1.0) -> float:
        """Take ``amount`` tokens; return the seconds until the debt is paid, 0 when there is none."""
        now = time.monotonic()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._level / self._rate)


class Budget:
    """One desktop's allowance. It outlives a connection, so that reconnecting gains nothing."""

    def __init__(self) -> None:
        self._buckets = {kind: Bucket(*limit) for kind, limit in LIMITS.items()}
        self._cpu = Bucket(SHARE, RESERVE)
        self._used = 0.0
        self._since: float | None = None

    def spend(self, kind: str, amount: float = 1.0) -> None:
        """Count ``amount`` of ``kind``, a key of :data:`LIMITS`. :class:`LimitExceeded` when that is too many."""
        if self._buckets[kind].take(amount):
            raise LimitExceeded(f"The desktop's VNC server sent too many {kind}.")

    def received(self, count: int) -> None:
        """Charge for ``count`` bytes that the loop received."""
        self._used += count * SECONDS_PER_BYTE

    def stop_clock(self) -> bool:
        """Stop counting CPU time, as the reader is about to wait; return whether it was counted."""
        if self._since is None:
            return False
        self._used += time.thread_time() - self._since
        self._since = None
        return True

    def start_clock(self, running: bool = True) -> None:
        """Count the event loop's CPU time from now on as the desktop's."""
        if running:
            self._since = time.thread_time()

    @property
    def due(self) -> bool:
        """Whether :meth:`pace` would yield."""
        return self._used >= SLICE

    async def pace(self) -> None:
        """Yield to the loop after a slice of CPU time; sleep while the desktop is over its share."""
        running = self.stop_clock()
        if self.due:
            pause = self._cpu.take(self._used)
            self._used = 0.0
            await asyncio.sleep(pause)
        self.start_clock(running)
