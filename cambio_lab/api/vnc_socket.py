"""``/vnc/{session_id}``: a session's desktop as RFB over a WebSocket, or the page that shows it.

jupyter-server-proxy's handler with what it lacks: the target is found by session, the connection to the desktop stands
before the upgrade is answered, and neither side may make the server hold more than it can send.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from jupyter_server_proxy.rawsocket import RawSocketHandler
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

from ..desktop.rfb.upstream import Greeting
from ..desktop.rfb.viewer_filter import ViewerInput
from ..errors import DesktopLost, SessionEnded
from ..events import HumanInput
from . import metrics, pages
from .agent_socket import VIEWER_LENGTH
from .failure import Refused
from .framed_upstream import FramedUpstream
from .frames import CLOSE, PING, PONG, Frames, header
from .socket import Socket

if TYPE_CHECKING:
    from ..sessions.session import Session

CHUNK = 64 * 1024
"""Bytes of a viewer's stream read at once."""
REPORT_SECONDS = 1.0
"""A viewer's input is reported to the session at most this often."""
_FROM_VIEWER = metrics.VNC_BYTES.labels("from_viewer")


class VncSocket(Socket, RawSocketHandler):  # type: ignore[misc]
    """One viewer. Its mouse and keyboard count while it has control, or while the agent is idle and nobody has."""

    what = "a desktop"
    session: Session
    upstream: FramedUpstream | None = None
    _joined = False
    _heard = True
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
        self.greeting, self.input, self.frames = Greeting(), ViewerInput(), Frames(self.max_message_size)
        self._tasks: set[asyncio.Task[None]] = set()

    async def _find(self, session_id: str) -> None:
        registry = await self.services.registry()
        self.session = await registry.find(session_id)
        if self.session.status != "active":
            raise SessionEnded("The session is over; its desktop is gone.")

    def released(self) -> None:
        if self.upstream is not None:
            self.upstream.close()

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """``binary`` is what old VNC clients offer; a browser refuses an answer to what it did not offer."""
        return "binary" if "binary" in subprotocols else None

    @property
    def ping_interval(self) -> float:
        """Tornado sends no pings of its own: it would not see the answers."""
        return 0

    async def open(self, session_id: str) -> None:
        """Returns when the connection is over: until then Tornado does not read from it, :meth:`_readable` does."""
        assert self.upstream is not None and self.ws_connection is not None
        self.set_nodelay(True)
        self.count_open(True)
        self._record_activity()
        self.session.add_viewer(self)
        self._joined = True
        self._connection, self._stream = self.ws_connection, self.ws_connection.stream
        self._stream.write(header(len(self.greeting.first)) + self.greeting.first)
        with contextlib.suppress(StreamClosedError):
            while True:
                # What is parked here keeps Tornado waiting for bytes that are taken before it sees them. Only what a
                # viewer said before it was greeted is Tornado's to give.
                parked = asyncio.ensure_future(self._stream.read_bytes(CHUNK, partial=True))
                if not parked.done():
                    self._listen()
                await self._until(parked)
                self._take(parked.result())

    async def _until(self, over: asyncio.Future[bytes]) -> None:
        """Wait for it, and let go of a viewer that has not answered one ping when the next is due."""
        while not (await asyncio.wait([over], timeout=self.services.settings.heartbeat))[0]:
            if not self._heard:
                self.log.info("%s /vnc: the viewer does not answer pings", self.request_id)
                self._stream.close()
            elif not self._stream.closed():
                self._heard = False
                self._stream.write(header(0, PING))

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self._stream.fileno(), self._readable)

    def _readable(self) -> None:
        """Take what the viewer sent from its socket, in one step."""
        more = True
        try:
            while more and not self._stream.closed():
                data = self._stream.socket.recv(CHUNK)
                if not data:
                    self._stream.close()
                    return
                # Only TLS holds back what the loop cannot see.
                more = isinstance(self._stream.socket, ssl.SSLSocket) and self._stream.socket.pending() > 0
                self._take(data)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            return
        except OSError:
            self._stream.close()

    def _take(self, data: bytes) -> None:
        self._heard = True
        try:
            for opcode, payload in self.frames.feed(data):
                self._frame(opcode, payload)
        except ValueError as error:
            self.log.info("%s /vnc: %s", self.request_id, error)
            self.close(1002, "This is not RFB as the server understands it")

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == CLOSE:
            self._connection.client_terminated = True
            self._connection.close(int.from_bytes(payload[:2], "big") if len(payload) > 1 else None)
        elif opcode == PING:
            self._stream.write(header(len(payload), PONG) + payload)
        elif opcode != PONG and not self._connection.is_closing():
            self._passed_on(payload)

    def _passed_on(self, data: bytes) -> None:
        """A piece of the viewer's stream; the next one is read when the desktop has room for it."""
        assert self.upstream is not None
        _FROM_VIEWER.inc(len(data))
        if not self.greeting.done:
            data = self._greet(data)
        self.may_act_changed()
        if data and (passed := self.input.feed(data)):
            self.upstream.write(passed)
            if self.upstream.full:
                asyncio.get_running_loop().remove_reader(self._stream.fileno())
                self._later(self._go_on())
        if self.input.counts and self._report is None:
            self._report = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._tell)

    async def _go_on(self) -> None:
        assert self.upstream is not None
        await self.upstream.drain()
        if not self._stream.closed():
            self._listen()

    def _greet(self, data: bytes) -> bytes:
        assert self.upstream is not None
        reply, rest = self.greeting.feed(data)
        if reply:
            self._stream.write(header(len(reply)) + reply)
        if self.greeting.done:
            # The desktop speaks only after ClientInit, which is in `rest` or still to come: nothing is overtaken.
            self.upstream.attach(self._stream)
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

    def may_act_changed(self) -> None:
        """The session calls this too: a viewer that lost the mouse may send nothing more, and still hold a button."""
        if self.upstream is not None and (ups := self.input.allow(self.session.may_act(self.name))):
            self.upstream.write(ups)

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
        if self.upstream is not None:
            # Xvnc lets go of a lost client's keys, but its button stays down until somebody else's next move.
            self.upstream.write(self.input.allow(False))
        self.released()

    def on_ping(self, data: bytes) -> None:
        """Tornado answers pings itself."""

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        with contextlib.suppress(WebSocketClosedError):
            super().close(code, reason)

    def options(self, *args: str, **kwargs: Any) -> None:
        super().options(*args)
