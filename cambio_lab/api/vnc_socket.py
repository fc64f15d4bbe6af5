"""``/vnc/{session_id}``: a session's desktop as RFB over a WebSocket, or the page that shows it.

jupyter-server-proxy's handler for raw sockets with what it lacks: the target is found by session, the connection to the
desktop stands before the upgrade is answered, both directions have back-pressure and both are checked.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from jupyter_server_proxy.rawsocket import RawSocketHandler
from prometheus_client import Counter
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

from ..desktop.keys import PAUSE_SECONDS
from ..desktop.rfb import Budget, parse_provided
from ..desktop.rfb.desktop_filter import DesktopOutput
from ..desktop.rfb.stream import ByteStream, authenticate
from ..desktop.rfb.viewer_filter import Greeting, ViewerInput
from ..errors import DesktopLost, SessionEnded
from ..events import HumanInput
from . import SHORT, Refused
from .rest import viewer_page
from .socket import Socket

if TYPE_CHECKING:
    from ..sessions.session import Session

CONNECT_SECONDS = 5.0
FROM_VIEWER_STEP, TO_VIEWER_STEP = 4 * 1024, 16 * 1024
"""Bytes of many small messages that are checked in one step of the event loop."""
LARGEST_MESSAGE = 1024 * 1024
"""Bytes of one WebSocket message from a viewer; the RFB stream has no use for larger ones."""
GREETING_SECONDS = 10.0
"""From the upgrade to the viewer's security type; noVNC needs two round trips."""
MOST_VIEWERS = 64
"""Of one session: each costs a connection to its X server, which draws the screen for it."""
REPORT_SECONDS = 1.0
"""A viewer's input is reported to the session at most this often."""
VNC_BYTES = Counter("cambio_lab_vnc_bytes_total", "Bytes through /vnc", ["direction"])
_FROM_VIEWER, _TO_VIEWER = VNC_BYTES.labels("from_viewer"), VNC_BYTES.labels("to_viewer")


class VncSocket(Socket, RawSocketHandler):  # type: ignore[misc]
    """One viewer. Its input passes while it has control, or while the agent is idle and no viewer has control."""

    what = "a desktop"
    max_message_size = LARGEST_MESSAGE
    session: Session
    upstream: ByteStream | None = None
    _joined = False
    _checked = 0
    _sent: asyncio.Future[None] | None = None
    _report: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None

    async def plain(self, session_id: str) -> None:  # type: ignore[override]
        """The page with noVNC, for people who open ``vnc_url`` in a browser."""
        await self._find(session_id)
        viewer_page(self, session_id)

    async def admit(self, session_id: str) -> None:  # type: ignore[override]
        """Connect to the desktop while a refusal can still be an HTTP answer."""
        self.name = self.argument("viewer", "") or f"viewer-{uuid4().hex[:8]}"
        if len(self.name) > SHORT:
            raise self.bad_query("viewer", "is too long", f"at most {SHORT}")
        await self._find(session_id)
        if len(self.session.viewers) >= MOST_VIEWERS:
            raise Refused(503, f"{MOST_VIEWERS} viewers watch this desktop. Close one first.")
        self.budget, self.output, self.greeting = Budget(), DesktopOutput(), Greeting()
        self.input = ViewerInput(output=self.output)
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None
        try:
            endpoint = self.session.desktop.endpoint()
            self.upstream = await ByteStream.connect(endpoint, CONNECT_SECONDS, self.budget)
            async with asyncio.timeout(CONNECT_SECONDS):
                await authenticate(self.upstream, endpoint.password)
        except TimeoutError:
            raise Refused(502, "The desktop's VNC server does not finish its handshake.") from None
        except DesktopLost as error:
            raise Refused(502, error.describe()) from None

    async def _find(self, session_id: str) -> None:
        self.session = await self.find(session_id)
        if self.session.status != "active":
            raise SessionEnded("The session is over; its desktop is gone.")

    def released(self) -> None:
        if self.upstream is not None:
            self.upstream.close()

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """``binary`` is what old VNC clients offer; a browser refuses an answer to what it did not offer."""
        return "binary" if "binary" in subprotocols else None

    async def open(self, session_id: str) -> None:
        """Begin with the viewer's handshake; the desktop is read once that is done."""
        self.set_nodelay(True)
        self.count_open(True)
        self._record_activity()
        self.session.add_viewer(self)
        self._joined = True
        self._deadline = asyncio.get_running_loop().call_later(GREETING_SECONDS, self.close, 1002, "Handshake too slow")
        if len(self.session.viewers) > MOST_VIEWERS:  # connected at the same time as the last ones
            self.close(1013, "Too many viewers")
            return
        await self.write_message(self.greeting.first, binary=True)

    # From the viewer
    def on_message(self, message: str | bytes) -> Awaitable[None] | None:
        """Pass a piece of the viewer's stream on; Tornado reads the next when what is returned is done."""
        data = message.encode() if isinstance(message, str) else message
        _FROM_VIEWER.inc(len(data))
        if not self.greeting.done or len(data) > FROM_VIEWER_STEP:
            return self._pass_all(data)
        try:
            self._pass_on(data)
        except (ValueError, DesktopLost) as error:
            self._end(error)
        return self._pass_all(b"") if self.upstream is not None and self.upstream.full else None

    async def _pass_all(self, data: bytes) -> None:
        assert self.upstream is not None
        try:
            if not self.greeting.done:
                data = await self._greet(data)
            for start in range(0, len(data), FROM_VIEWER_STEP):
                self._pass_on(data[start : start + FROM_VIEWER_STEP])
                await self.upstream.drain()
                await asyncio.sleep(0)
            await self.upstream.drain()
        except (ValueError, DesktopLost) as error:
            self._end(error)

    def _pass_on(self, data: bytes) -> None:
        assert self.upstream is not None
        self.may_act_changed()
        if data and (passed := self.input.feed(data)):
            self.upstream.write(passed)
        if self.input.counts and self._report is None:
            self._report = asyncio.get_running_loop().call_later(REPORT_SECONDS, self._tell)

    def _end(self, error: ValueError | DesktopLost) -> None:
        if isinstance(error, DesktopLost):
            self._desktop_gone()
            return
        self.log.info("%s /vnc: %s", self.request_id, error)
        self.close(1002, "This is not RFB as the server understands it")

    async def _greet(self, data: bytes) -> bytes:
        reply, rest = self.greeting.feed(data)
        if reply:
            await self.write_message(reply, binary=True)
        if self.greeting.done and self._deadline is not None:
            self._deadline.cancel()
            # The desktop speaks only after ClientInit, which is in `rest` or still to come.
            self._pump = asyncio.create_task(self._to_viewer(), name=f"viewer {self.name}: from the desktop")
        return rest

    # To the viewer
    async def _to_viewer(self) -> None:
        """Send what the desktop sends, as fast as the viewer takes it; the desktop is not read meanwhile."""
        assert self.upstream is not None
        self.upstream.arrived = self._send_now
        try:
            while True:
                data = await self.upstream.read_some()
                await self._check(data)
                if self._sent is not None:
                    await self._sent  # one piece is on its way while the next is read
                self._send(data)
        except ValueError as error:
            self._reject(error)
        except DesktopLost:
            self._desktop_gone()
        except (WebSocketClosedError, StreamClosedError):
            self.released()

    def _send_now(self, data: memoryview) -> bool:
        """Send at once what is cheap to check and has nothing to wait for; a mouse waits for this round trip."""
        waits = self.budget.due or (self._sent is not None and not self._sent.done())
        if waits or len(data) > max(TO_VIEWER_STEP, self.output.skipping):
            return False
        try:
            self._feed(data)
            if self.output.clipboards or self.output.pause:
                self._checked = len(data)
                return False
            self._send(bytes(data))
        except ValueError as error:
            self._reject(error)
        except (WebSocketClosedError, StreamClosedError):
            self.released()
        return True

    def _send(self, data: bytes) -> None:
        _TO_VIEWER.inc(len(data))
        self._sent = self.write_message(data, binary=True)
        self._sent.add_done_callback(lambda sent: sent.cancelled() or sent.exception())

    def _reject(self, error: ValueError) -> None:
        self.log.warning("%s /vnc: viewer disconnected: %s", self.request_id, error)
        self.close(1011, "The desktop sent what a viewer must not get")
        self.released()

    def _feed(self, data: memoryview) -> None:
        self.budget.start_clock()
        try:
            self.output.feed(data)
        finally:
            self.budget.stop_clock()

    async def _check(self, data: bytes) -> None:
        """Wait until the viewer may get ``data``. ``ValueError`` when it must not."""
        rest, self._checked = memoryview(data)[self._checked :], 0
        while rest:
            step = max(TO_VIEWER_STEP, self.output.skipping)
            self._feed(rest[:step])
            rest = rest[step:]
            await self.budget.pace()
        while self.output.clipboards:
            await asyncio.to_thread(parse_provided, self.output.clipboards.pop())
        if self.output.pause:
            pause, self.output.pause = self.output.pause, 0.0
            await asyncio.sleep(pause)

    def report(self) -> None:
        """Report what this viewer did so far; the session calls this before the agent goes on."""
        if self._report is not None:
            self._report.cancel()
            self._tell(everything=True)

    def _tell(self, *, everything: bool = False) -> None:
        """Report what this viewer did since the last report: ``everything``, or what is complete."""
        self._report = None
        self._record_activity()
        if self.input.counts:
            event = HumanInput(self.name, **self.input.counts)
            self.input.counts.clear()
            self._later(self.session.record_human_input(event))
        if actions := self.input.actions.take(everything=everything):
            self._later(self.session.human.record(actions))
        if self.input.actions.waiting:  # the latest may go on for a moment
            self._report = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._tell)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` in a task; the session may have ended meanwhile."""

        async def quietly() -> None:
            with contextlib.suppress(SessionEnded):
                await work

        task = asyncio.create_task(quietly(), name=f"viewer {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def may_act_changed(self) -> None:
        """Release what a viewer holds that has lost control; the session calls this, too."""
        self._allow(self.session.may_act(self.name))

    def _allow(self, may_act: bool) -> None:
        if (releases := self.input.allow(may_act)) and self.upstream is not None and self.upstream.open:
            self.upstream.write(releases)

    def session_ended(self, reason: str) -> None:
        """Close the viewer; the session calls this."""
        self.close(1000, "The session is over")

    def _desktop_gone(self) -> None:
        if self.ws_connection is not None:
            self.close(1011 if self.session.status == "active" else 1000, "The desktop closed the connection")

    def on_close(self) -> None:
        self.count_open(False)
        if self._deadline is not None:
            self._deadline.cancel()
        self.report()
        if self._joined:
            self._later(self.session.remove_viewer(self))
        if self._pump is not None:
            self._pump.cancel()
        # Xvnc releases a lost client's keys, but its button stays down until another client's next move.
        self._allow(False)
        self.released()

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        with contextlib.suppress(WebSocketClosedError):
            super().close(code, reason)
