"""``/vnc/{session_id}``: a session's desktop as RFB over a WebSocket, or the page that shows it.

jupyter-server-proxy's handler with what it lacks: the target is found by session, the connection to the desktop stands
before the upgrade is answered, and neither side may make the server hold more than it can send.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from jupyter_server_proxy.rawsocket import RawSocketHandler
from tornado.websocket import WebSocketClosedError

from ..desktop.upstream import Greeting, RfbUpstream
from ..desktop.viewer import ViewerInput
from ..errors import DesktopLost, SessionEnded
from ..events import HumanInput
from . import metrics, pages
from .agent_socket import VIEWER_LENGTH
from .failure import Refused
from .socket import Socket

if TYPE_CHECKING:
    from tornado.iostream import IOStream

    from ..sessions.session import Session

FRAME_ROOM = 10
"""Bytes in front of a read, where the longest header of a WebSocket frame fits."""
READ_SIZE = 256 * 1024
HIGH_WATER = 1024 * 1024
"""Bytes that may wait for a slow viewer before the desktop is no longer read."""
REPORT_SECONDS = 1.0
"""A viewer's input is reported to the session at most this often."""


class FramedUpstream(RfbUpstream):
    """Puts what it reads into WebSocket frames in place: the bytes go from one socket to the other uncopied.

    The read buffer has room in front for the frame's header. A buffer that the viewer's socket did not take at once
    now belongs to that socket, and the next read gets a new one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._stream: IOStream | None = None
        self._waiting = 0
        self._fresh()

    def _fresh(self) -> None:
        self._frame = memoryview(bytearray(FRAME_ROOM + READ_SIZE))

    def attach(self, stream: IOStream) -> None:
        """From now on what the desktop sends is written to ``stream``."""
        self._stream = stream

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._frame[FRAME_ROOM:] if self._stream is not None else super().get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        if self._stream is None:
            super().buffer_updated(nbytes)
            return
        if self._stream.closed():
            self.close()
            return
        head = frame_header(nbytes)
        start = FRAME_ROOM - len(head)
        self._frame[start:FRAME_ROOM] = head
        size = len(head) + nbytes
        written = self._stream.write(self._frame[start : FRAME_ROOM + nbytes])
        metrics.VNC_BYTES.labels("to_viewer").inc(nbytes)
        if written.done():
            return
        self._fresh()
        self._waiting += size
        written.add_done_callback(lambda _: self._taken(size))
        if self._waiting > HIGH_WATER:
            self.pause()

    def _taken(self, size: int) -> None:
        self._waiting -= size
        if self._waiting <= HIGH_WATER // 2:
            self.resume()


def frame_header(length: int) -> bytes:
    """Of an unmasked, final, binary frame (RFC 6455, section 5.2)."""
    if length < 126:
        return struct.pack("!BB", 0x82, length)
    return struct.pack("!BBH", 0x82, 126, length) if length < 65536 else struct.pack("!BBQ", 0x82, 127, length)


class VncSocket(Socket, RawSocketHandler):  # type: ignore[misc]
    """One viewer. Its mouse and keyboard count while it has control, or while the agent is idle and nobody has."""

    what = "a desktop"
    session: Session
    upstream: FramedUpstream | None = None
    _joined = False
    _report: asyncio.TimerHandle | None = None

    async def plain(self, session_id: str) -> None:  # type: ignore[override]
        """The page with noVNC, for people who open ``vnc_url`` in a browser."""
        await self._find(session_id)
        pages.viewer(self, session_id)

    async def admit(self, session_id: str) -> None:  # type: ignore[override]
        """Connect to the desktop; whoever cannot be served gets an answer instead of a socket without life."""
        self.name = self.argument("viewer", "") or f"viewer-{uuid4().hex[:8]}"
        if len(self.name) > VIEWER_LENGTH:
            raise Refused(400, "The query parameter viewer is too long.", {"viewer": f"at most {VIEWER_LENGTH}"})
        await self._find(session_id)
        try:
            upstream = await FramedUpstream.connect(self.session.desktop.endpoint())
        except DesktopLost as error:
            raise Refused(502, error.describe()) from None
        assert isinstance(upstream, FramedUpstream)
        self.upstream = upstream
        self.greeting, self.input = Greeting(), ViewerInput()
        self._tasks: set[asyncio.Task[None]] = set()

    async def _find(self, session_id: str) -> None:
        registry = await self.services.registry()
        self.session = registry.get(session_id)
        if self.session.status != "active":
            raise SessionEnded("The session is over; its desktop is gone.")

    def released(self) -> None:
        if self.upstream is not None:
            self.upstream.close()

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """``binary`` is what old VNC clients offer; a browser refuses an answer to what it did not offer."""
        return "binary" if "binary" in subprotocols else None

    async def open(self, session_id: str) -> None:
        assert self.upstream is not None and self.ws_connection is not None
        self.set_nodelay(True)
        self.count_open(True)
        self._record_activity()
        self.session.add_viewer(self)
        self._joined = True
        await self.write_message(self.greeting.first, binary=True)

    async def on_message(self, message: str | bytes) -> None:
        """A piece of the viewer's stream. The next one is read when the desktop has room for it."""
        assert self.upstream is not None
        data = message.encode() if isinstance(message, str) else message
        metrics.VNC_BYTES.labels("from_viewer").inc(len(data))
        try:
            if not self.greeting.done:
                data = await self._greet(data)
            self.input.may_act = self.session.may_act(self.name)
            passed = self.input.feed(data) if data else b""
        except ValueError as error:
            self.log.info("%s /vnc: %s", self.request_id, error)
            self.close(1002, "This is not RFB as the server understands it")
            return
        if passed:
            self.upstream.write(passed)
            await self.upstream.drain()
        if self.input.counts and self._report is None:
            loop = asyncio.get_running_loop()
            self._report = loop.call_later(REPORT_SECONDS, self._tell)

    async def _greet(self, data: bytes) -> bytes:
        assert self.upstream is not None and self.ws_connection is not None
        reply, rest = self.greeting.feed(data)
        if reply:
            await self.write_message(reply, binary=True)
        if self.greeting.done:
            # The desktop speaks only after ClientInit, which is in `rest` or still to come: nothing is overtaken.
            self.upstream.attach(self.ws_connection.stream)
            self.upstream.start(lambda data: None, self._desktop_gone)
        return rest

    def _tell(self) -> None:
        """Report what this viewer did since the last report."""
        self._report = None
        self._record_activity()
        if counts := self.input.take_counts():
            event = HumanInput(self.name, counts.pointer, counts.keys, counts.clipboard)
            self._later(self.session.record_human_input(event))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` in a task that is kept until it is done; the session may have ended meanwhile."""

        async def quietly() -> None:
            with contextlib.suppress(SessionEnded):
                await work

        task = asyncio.create_task(quietly(), name=f"viewer {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def session_ended(self, reason: str) -> None:
        """The session calls this: there is nothing left to see."""
        self.close(1000, "The session is over")

    def _desktop_gone(self, error: Exception | None) -> None:
        if self.ws_connection is not None:
            self.close(1011 if self.session.status == "active" else 1000, "The desktop closed the connection")

    def on_close(self) -> None:
        self.count_open(False)
        if self._report is not None:
            self._report.cancel()
            self._tell()
        if self._joined:
            self._joined = False
            self._later(self.session.remove_viewer(self))
        self.released()

    def on_ping(self, data: bytes) -> None:
        """Tornado answers pings itself."""

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        with contextlib.suppress(WebSocketClosedError):
            super().close(code, reason)

    def options(self, *args: str, **kwargs: Any) -> None:
        super().options(*args)
