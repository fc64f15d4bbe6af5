"""``/ws/{session_id}``: messages and commands in, what happens out; ``/ws``: the states of all sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tornado.websocket import WebSocketClosedError, WebSocketHandler

from ..errors import CambioError, InvalidRequest, SessionEnded, StoreUnavailable
from . import messages, metrics
from .failure import Refused, timestamp
from .offered_tools import OfferedTools
from .socket import Socket
from .strict_json import BadJson, parse, short_text

if TYPE_CHECKING:
    from ..sessions.broadcast import Subscription
    from ..sessions.session import Session

logger = logging.getLogger(__name__)
WHEN = ("next", "idle")
"""When a message is read: before the agent's next request, or only while no turn runs (else it is refused)."""
TRUE, FALSE = {"true", "1", "yes"}, {"false", "0", "no", ""}


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

    def start(self, pump: Callable[[], Awaitable[None]]) -> None:
        """Begin to send; both tasks end with the connection."""
        self.set_nodelay(True)
        self.count_open(True)
        self._tasks = (
            asyncio.create_task(self._quietly(pump), name=f"{self.endpoint} events"),
            asyncio.create_task(self._quietly(self._beat), name=f"{self.endpoint} heartbeat"),
        )

    def on_close(self) -> None:
        self.count_open(False)
        self.released()
        if self._control:
            self._leaving = asyncio.create_task(self._leave(), name=f"{self.endpoint} control")
        for task in self._tasks:
            task.cancel()

    async def send(self, body: messages.Body | str) -> None:
        """Send, and wait until the peer has taken it: what a slow peer cannot take waits in the store."""
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        metrics.SOCKET_MESSAGES.labels("out").inc()
        await self.write_message(text)

    async def on_message(self, message: str | bytes) -> None:
        """One frame; whatever is wrong with it is answered with an ``error`` and the connection stays."""
        metrics.SOCKET_MESSAGES.labels("in").inc()
        try:
            await self.handle(parse_frame(message))
        except BadJson as error:
            answer = messages.failure("Message not understood", f"The frame is not JSON: {error}")
        except CambioError as error:
            answer = messages.failure(title(error), error.describe(), dict(error.details))
        except WebSocketClosedError:
            return
        except Exception:
            logger.exception("%s %s: a frame could not be handled", self.request_id, self.endpoint)
            answer = messages.failure("Internal error", "Something went wrong inside the server; its log says what.")
        else:
            return
        with contextlib.suppress(WebSocketClosedError):
            await self.send(answer)

    async def handle(self, body: dict[str, Any]) -> None:
        """Do what the message says. Deliberate errors become ``error`` messages."""
        raise NotImplementedError

    async def take_control(self, session: Session, viewer: str) -> None:
        """Take control for a viewer; it ends with this connection, unless the viewer still watches the desktop."""
        self._control |= {(session, viewer)}  # first: the connection may end before this is on disk
        await session.take_control(viewer)

    async def give_back(self, session: Session, viewer: str) -> None:
        """Give the control of a viewer back to the agent."""
        self._control -= {(session, viewer)}
        await session.give_back(viewer)

    async def _leave(self) -> None:
        for session, viewer in self._control:
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
        registry = await self.services.registry()
        await registry.find(session_id)
        await super().plain(session_id)

    async def admit(self, session_id: str) -> None:  # type: ignore[override]
        """Find the session and begin to collect its events, so that none is missed during the handshake."""
        stream, after = self._stream(), self._after()
        registry = await self.services.registry()
        self.session = await registry.find(session_id)
        try:
            self.subscription = self.session.subscribe(
                after=after, stream=stream, max_bytes=self.services.settings.queue_bytes
            )
        except InvalidRequest as error:  # `after` beyond the last event: a bad query value
            raise Refused(400, error.describe(), error.details) from None
        self.viewer = f"socket-{uuid.uuid4().hex[:8]}"
        self.tools = OfferedTools(self.session, self.send)

    def released(self) -> None:
        if self.subscription is not None:
            self.tools.withdraw()
            self.subscription.close()
            metrics.SLOW_READERS.inc(self.subscription.lagged)
            self.subscription.lagged = 0

    def open(self, session_id: str) -> None:
        self.start(self._pump)

    async def _pump(self) -> None:
        assert self.subscription is not None
        now = self.session.snapshot_status()
        await self.send({"type": "status", **now, "timestamp": timestamp(), "sequence": self.subscription.position})
        async for _, text in self.subscription:
            await self.send(text)
        self.close(1000, "The session is over")

    async def handle(self, body: dict[str, Any]) -> None:
        kind = body.get("type", "message")
        if kind == "message":
            await self._message(body)
        elif isinstance(kind, str) and kind in COMMANDS:
            await COMMANDS[kind](self, body)
        else:
            raise unknown_type(kind, ["message", *COMMANDS])

    async def _message(self, body: dict[str, Any]) -> None:
        when = body.get("when", "next")
        if when not in WHEN:
            raise InvalidRequest("when must be next or idle.", details={"when": f"one of {', '.join(WHEN)}"})
        await self.session.send(body.get("content"), body.get("metadata"), queue=when == "next")

    def _stream(self) -> bool:
        value = self.argument("stream", "").lower()
        if value not in TRUE | FALSE:
            raise Refused(400, "The query parameter stream must be true or false.", {"stream": "true or false"})
        return value in TRUE

    def _after(self) -> int | None:
        if "after" not in self.request.query_arguments:
            return None
        text = self.argument("after", "")
        if not re.fullmatch(r"[0-9]{1,18}", text):
            raise Refused(400, "The query parameter after must be a sequence number.", {"after": "a whole number"})
        return int(text)

    # Commands

    async def _stop(self, body: dict[str, Any]) -> None:
        await self.session.stop(short_text(body, "message_id"))

    async def _take_back(self, body: dict[str, Any]) -> None:
        message_id = short_text(body, "message_id")
        if message_id is None:
            raise InvalidRequest("Which message? Send its message_id.", details={"message_id": "missing"})
        await self.session.take_back(message_id)

    async def _pause(self, body: dict[str, Any]) -> None:
        await self.session.pause()

    async def _resume(self, body: dict[str, Any]) -> None:
        await self.session.resume()

    async def _approve(self, body: dict[str, Any]) -> None:
        await self.session.approve(short_text(body, "tool_use_id"), by=short_text(body, "viewer") or self.viewer)

    async def _deny(self, body: dict[str, Any]) -> None:
        await self.session.deny(short_text(body, "tool_use_id"), by=short_text(body, "viewer") or self.viewer)

    async def _take_control(self, body: dict[str, Any]) -> None:
        await self.take_control(self.session, short_text(body, "viewer") or self.viewer)

    async def _give_back(self, body: dict[str, Any]) -> None:
        await self.give_back(self.session, short_text(body, "viewer") or self.viewer)

    async def _offer_tools(self, body: dict[str, Any]) -> None:
        names = await self.tools.offer(body.get("tools"))
        await self.send({"type": "tools_offered", "tools": names, "timestamp": timestamp()})

    async def _tool_result(self, body: dict[str, Any]) -> None:
        self.tools.result(body)


COMMANDS: dict[str, Callable[[AgentSocket, dict[str, Any]], Awaitable[None]]] = {
    "stop": AgentSocket._stop,
    "take_back": AgentSocket._take_back,
    "pause": AgentSocket._pause,
    "resume": AgentSocket._resume,
    "approve": AgentSocket._approve,
    "deny": AgentSocket._deny,
    "take_control": AgentSocket._take_control,
    "give_back": AgentSocket._give_back,
    "offer_tools": AgentSocket._offer_tools,
    "tool_result": AgentSocket._tool_result,
}


def parse_frame(frame: str | bytes) -> dict[str, Any]:
    """A frame as a JSON object."""
    if isinstance(frame, bytes):
        raise InvalidRequest("Binary frames are not understood: send JSON as text.")
    body = parse(frame)
    if not isinstance(body, dict):
        raise InvalidRequest('A message is a JSON object such as {"content": "..."}.')
    return body


def unknown_type(kind: object, known: list[str]) -> InvalidRequest:
    return InvalidRequest(f"There is no message of this type: {str(kind)[:60]!r}.", hint=f"Known: {', '.join(known)}.")


def title(error: CambioError) -> str:
    """``TurnRunning`` as "Turn running": the short form of a deliberate error."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).capitalize()
