"""TigerVNC's extended clipboard: UTF-8 both ways, sent only when a program pastes.

Messages are ``ClientCutText``/``ServerCutText`` whose length is negative: four bytes of flags (which formats, which
action), then the action's data. Text is length-prefixed, NUL-terminated, CRLF-ended lines under zlib.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from contextlib import suppress

from cambio_lab.errors import DesktopError

from .stream import ByteStream

ENCODING = -0x3F5E1A32  # 0xC0A1E5CE as a signed number

TEXT = 1 << 0
CAPS, REQUEST, PEEK, NOTIFY, PROVIDE = (1 << bit for bit in range(24, 29))
LARGEST = 2 * 1024 * 1024
"""Bytes of text accepted from a desktop, and of a message that carries it: 4 KB can inflate to 4 MB."""
KEEPER_SECONDS = 0.5
"""The desktop's clipboard keeper takes over what a program that has just ended had copied within this time."""


def cut_text(data: bytes, kind: int = 6) -> bytes:
    """Return a cut-text message (``kind`` 6 from a client) that carries ``data`` in the extended way."""
    return struct.pack(">Bxxxi", kind, -len(data)) + data


def caps() -> bytes:
    """Announce what we can do: text up to ``LARGEST`` bytes, announced rather than sent unrequested."""
    return cut_text(struct.pack(">II", CAPS | REQUEST | PEEK | NOTIFY | PROVIDE | TEXT, 0))


def request() -> bytes:
    return cut_text(struct.pack(">I", REQUEST | TEXT))


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
            self._stream.write(request())
        return self._waiting

    async def received(self, flags: int, data: bytes) -> None:
        """Handle one extended message of the server; ``data`` follows the flags."""
        if flags & CAPS:
            self._stream.write(caps())
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
                self._stream.write(request())
        else:
            self._filled.clear()
            self._emptied = loop.time()
            if waiting is not None:
                loop.call_later(KEEPER_SECONDS, self._still_empty, waiting)

    def _still_empty(self, waiting: asyncio.Future[str]) -> None:
        if not waiting.done() and self.known() == "":
            waiting.set_result("")

    async def _provided(self, data: bytes, waiting: asyncio.Future[str]) -> None:
        text: str | None = None
        reason = ""
        try:
            text = await asyncio.to_thread(parse_provided, data)
        except ValueError as error:
            reason = str(error)
        if waiting.done():
            return
        if text is None:
            waiting.set_exception(DesktopError(f"The desktop's clipboard cannot be read: {reason}."))
        else:
            self._received = text
            waiting.set_result(text)
