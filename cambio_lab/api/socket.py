"""WebSockets: all is decided before the upgrade, dead peers are dropped, frames are answered; that of a session."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar

from prometheus_client import Counter, Gauge
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..errors import CambioError, InvalidRequest, SessionEnded, StoreUnavailable
from ..events import timestamp
from . import SHORT, BadJson, Refused, messages, parse
from .base import Guarded

if TYPE_CHECKING:
    from ..sessions import Subscription
    from ..sessions.session import Session
    from .schemas import Command, OfferedTools

logger = logging.getLogger(__name__)
SOCKETS = Gauge("cambio_lab_websocket_connections", "Open WebSockets", ["endpoint"])
SOCKET_MESSAGES = Counter("cambio_lab_websocket_messages_total", "Messages on /ws", ["direction"])
SLOW_READERS = Counter("cambio_lab_slow_readers_total", "Times that a reader of /ws was sent to the store to catch up")
_CONTROLS: dict[str, Callable[[Session, Command, str], Awaitable[None]]] = {
    "stop": lambda session, command, viewer: session.stop(command.message_id),
    "take_back": lambda session, command, viewer: session.take_back(command.message_id or ""),
    "pause": lambda session, command, viewer: session.pause(),
    "resume": lambda session, command, viewer: session.resume(),
    "approve": lambda session, command, viewer: session.approve(command.tool_use_id, by=viewer),
    "deny": lambda session, command, viewer: session.deny(command.tool_use_id, by=viewer),
    "take_control": lambda session, command, viewer: session.take_control(viewer),
    "give_back": lambda session, command, viewer: session.hand_back(viewer),
    "answer": lambda session, command, viewer: session.answer(command.text, command.tool_use_id, viewer),
}
WHEN = ("next", "idle", "now")
"""When a message is read: before the agent's next request, or only while no turn runs (else it is refused)."""
CONTROLS = tuple(_CONTROLS)
"""What a person does to a turn: the types of :class:`.schemas.Command`."""
COMMANDS = (*CONTROLS, "offer_tools", "tool_result")
TRUE, FALSE = {"true", "1", "yes"}, {"false", "0", "no", ""}


class Socket(Guarded):
    """Mixed in before a WebSocket handler. :meth:`admit` looks things up while a refusal can still be an answer."""

    methods = ("GET",)
    what: ClassVar[str] = "a WebSocket"
    _counted = False

    async def get(self, *args: str, **kwargs: str) -> None:
        """The handshake, or :meth:`plain` for a request that is none."""
        if not self.upgrading:
            await self.plain(*args)
            return
        headers = self.request.headers
        if "upgrade" not in {part.strip().lower() for part in headers.get("Connection", "").split(",")}:
            raise Refused(400, "The header 'Connection: Upgrade' is missing.")
        if headers.get("Sec-WebSocket-Version") != "13":
            version = {"Sec-WebSocket-Version": "13"}
            raise Refused(400, "Only version 13 of the WebSocket protocol is spoken here.", headers=version)
        if not headers.get("Sec-WebSocket-Key"):
            raise Refused(400, "The header Sec-WebSocket-Key is missing.")
        try:
            await self.admit(*args)
            await super().get(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.released()

    async def plain(self, *args: str) -> None:
        """A GET without upgrade."""
        raise Refused(400, f"This is {self.what}: connect with a WebSocket client.", headers={"Upgrade": "websocket"})

    async def admit(self, *args: str) -> None:
        """Raise what speaks against this connection; nothing is upgraded yet."""

    def released(self) -> None:
        """The connection is over, or never came to be: release what :meth:`admit` took."""

    @property
    def ping_interval(self) -> float:
        """Seconds; Tornado drops a peer that has not answered one ping when the next is due."""
        return self.services.settings.heartbeat

    ping_timeout = ping_interval

    def count_open(self, opened: bool) -> None:
        """Keep the gauge of open sockets true, however often the end is reported."""
        if opened != self._counted:
            self._counted = opened
            SOCKETS.labels(self.endpoint).inc(1 if opened else -1)


class EventSocket(Socket, WebSocketHandler):
    """One connection: a task that sends what happens, a task that sends heartbeats, frames handled in order."""

    limits = ("general", "websocket")
    _tasks: tuple[asyncio.Task[None], ...] = ()
    _control: frozenset[tuple[Session, str]] = frozenset()
    """Sessions, and the names of viewers for whom this connection took control."""
    _leaving: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        """Bytes; a larger frame ends the connection with close code 1009."""
        return self.services.settings.max_body

    def open(self, *args: str) -> None:
        """Begin to send; both tasks end with the connection."""
        self.set_nodelay(True)
        self.count_open(True)
        self._tasks = (
            asyncio.create_task(self._quietly(self.pump), name=f"{self.endpoint} events"),
            asyncio.create_task(self._quietly(self._beat), name=f"{self.endpoint} heartbeat"),
        )

    def on_close(self) -> None:
        self.count_open(False)
        self.released()
        if self._control:
            self._leaving = asyncio.create_task(self.leave(), name=f"{self.endpoint} control")
        for task in self._tasks:
            task.cancel()

    async def send(self, body: messages.Body | str) -> None:
        """Send, and wait until the peer has taken it: what a slow peer cannot take waits in the store."""
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        SOCKET_MESSAGES.labels("out").inc()
        await self.write_message(text)

    async def on_message(self, message: str | bytes) -> None:
        """One frame; whatever is wrong with it is answered with an ``error`` and the connection stays."""
        SOCKET_MESSAGES.labels("in").inc()
        body: dict[str, Any] = {}
        try:
            if isinstance(message, bytes):
                raise InvalidRequest("Binary frames are not understood: send JSON as text.")
            frame = parse(message)
            if not isinstance(frame, dict):
                raise InvalidRequest('A message is a JSON object such as {"content": "..."}.')
            body = frame
            await self.handle(body)
        except BadJson as error:
            answer = messages.failure("Message not understood", f"The frame is not JSON: {error}")
        except CambioError as error:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).capitalize()  # "Turn running"
            answer = messages.failure(words, error.describe(), dict(error.details))
        except WebSocketClosedError:
            return
        except Exception:
            logger.exception("%s %s: a frame could not be handled", self.request_id, self.endpoint)
            answer = messages.failure("Internal error", "Something went wrong inside the server; its log says what.")
        else:
            return
        if isinstance(about := body.get("session_id"), str):
            answer["session_id"] = about[:SHORT]
        with contextlib.suppress(WebSocketClosedError):
            await self.send(answer)

    async def tell(self, session: Session, subscription: Subscription, **about: str) -> None:
        """Send the session's state, then every event until it is over or no longer followed, with ``about`` added."""
        try:
            now = {"type": "status", **session.snapshot_status(), "timestamp": timestamp()}
            await self.send({**now, "sequence": subscription.position, **about})
            tail = json.dumps(about, separators=(",", ":"))[1:]
            async for _, text in subscription:
                await self.send(f"{text[:-1]},{tail}" if about else text)
        finally:
            subscription.close()
            SLOW_READERS.inc(subscription.lagged)

    async def pump(self) -> None:
        """Send what happens, then close the connection."""
        raise NotImplementedError

    async def handle(self, body: dict[str, Any]) -> None:
        """Do what the message says. Deliberate errors become ``error`` messages."""
        raise NotImplementedError

    async def message(self, session: Session, body: dict[str, Any]) -> None:
        """Give the agent what a person says."""
        when = body.get("when", "next")
        if when not in WHEN:
            raise InvalidRequest("when must be next, idle or now.", details={"when": f"one of {', '.join(WHEN)}"})
        fields = {name: body[name] for name in ("answer_schema", "images") if name in body}
        await session.send(body.get("content"), body.get("metadata"), when=when, **fields)

    async def control(self, session: Session, body: dict[str, Any], viewer: str) -> None:
        """Do what a person asks of a session; ``viewer`` is who asks where the command does not say.

        Control ends with this connection, unless the viewer still watches the desktop.
        """
        from . import schemas  # loaded by the start hook, off the loop

        command = schemas.parse(schemas.Command, body)
        viewer = command.viewer or viewer
        if command.type == "take_back" and command.message_id is None:
            raise InvalidRequest("Which message? Send its message_id.", details={"message_id": "missing"})
        if command.type == "take_control":  # noted first: the connection may end before this is on disk
            self._control |= {(session, viewer)}
        elif command.type == "give_back":
            self._control -= {(session, viewer)}
        await _CONTROLS[command.type](session, command, viewer)

    async def leave(self, session_id: str | None = None) -> None:
        """Give back what this connection controls, of one session or of all."""
        leaving = {(session, viewer) for session, viewer in self._control if session_id in (None, session.id)}
        self._control -= leaving
        for session, viewer in leaving:
            with contextlib.suppress(SessionEnded, StoreUnavailable):  # the session ends, and its control with it
                await session.leave(viewer)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.services.settings.heartbeat)
            await self.send(messages.heartbeat())

    async def _quietly(self, work: Callable[[], Awaitable[None]]) -> None:
        """A peer that left is no error; anything else ends the connection and is logged."""
        try:
            await work()
        except WebSocketClosedError:
            pass
        except CambioError as error:
            logger.error("%s %s: %s", self.request_id, self.endpoint, error.describe())
            self.close(1011, "The server cannot read its records now; connect again with ?after=")
        except Exception:
            logger.exception("%s %s", self.request_id, self.endpoint)
            self.close(1011, "Something went wrong inside the server")


class AgentSocket(EventSocket):
    """``/ws/{session_id}``"""

    what = "the WebSocket of a session"
    session: Session
    subscription: Subscription | None = None

    async def plain(self, session_id: str) -> None:  # type: ignore[override]
        """Says what speaks against the session: a browser cannot read why an upgrade was refused, and asks again."""
        await self.find(session_id)
        await super().plain(session_id)

    async def admit(self, session_id: str) -> None:  # type: ignore[override]
        """Find the session and begin to collect its events, so that none is missed during the handshake."""
        stream = self.argument("stream", "").lower()
        if stream not in TRUE | FALSE:
            raise self.bad_query("stream", "must be true or false", "true or false")
        after = None
        if "after" in self.request.query_arguments:
            if not re.fullmatch(r"[0-9]{1,18}", text := self.argument("after", "")):
                raise self.bad_query("after", "must be a sequence number", "a whole number")
            after = int(text)
        self.session = await self.find(session_id)
        try:
            self.subscription = self.session.subscribe(after=after, stream=stream in TRUE)
        except InvalidRequest as error:  # `after` beyond the last event: a bad query value
            raise Refused(400, error.describe(), error.details) from None
        self.viewer = f"socket-{uuid.uuid4().hex[:8]}"
        self.tools: OfferedTools | None = None

    def released(self) -> None:
        if self.subscription is not None:
            if self.tools is not None:
                self.tools.withdraw()
            self.subscription.close()

    async def pump(self) -> None:
        assert self.subscription is not None
        await self.tell(self.session, self.subscription)
        self.close(1000, "The session is over")

    async def handle(self, body: dict[str, Any]) -> None:
        kind = body.get("type", "message")
        if kind == "message":
            await self.message(self.session, body)
        elif kind in CONTROLS:
            await self.control(self.session, body, self.viewer)
        elif kind in ("offer_tools", "tool_result"):
            from . import schemas  # loaded by the start hook, off the loop

            self.tools = self.tools or schemas.OfferedTools(self.session, self.send)
            if kind == "tool_result":
                await self.tools.result(body)
            else:
                names = self.tools.offer(body)
                await self.send({"type": "tools_offered", "tools": names, "timestamp": timestamp()})
        else:
            raise unknown_type(kind, ["message", *COMMANDS])


def unknown_type(kind: object, known: list[str]) -> InvalidRequest:
    return InvalidRequest(f"There is no message of this type: {str(kind)[:60]!r}.", hint=f"Known: {', '.join(known)}.")
