"""``/ws/{session_id}``: messages and commands in, what happens out, and functions that the client offers."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .failure import Refused, timestamp
from .socket import CONTROLS, EventSocket, unknown_type

if TYPE_CHECKING:
    from ..agent.extras import ExtraResult
    from ..desktop.base import Screenshot
    from ..sessions.broadcast import Subscription
    from ..sessions.session import Session

TRUE, FALSE = {"true", "1", "yes"}, {"false", "0", "no", ""}
COMMANDS = (*CONTROLS, "offer_tools", "tool_result")
GONE = "The notebook or program that offered this function has gone."


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
        stream, after = self._stream(), self._after()
        self.session = await self.find(session_id)
        try:
            self.subscription = self.session.subscribe(after=after, stream=stream)
        except InvalidRequest as error:  # `after` beyond the last event: a bad query value
            raise Refused(400, error.describe(), error.details) from None
        self.viewer = f"socket-{uuid.uuid4().hex[:8]}"
        self.tools = OfferedTools(self.session, self.send)

    def released(self) -> None:
        if self.subscription is not None:
            self.tools.withdraw()
            self.subscription.close()

    def open(self, session_id: str) -> None:
        self.start(self._pump)

    async def _pump(self) -> None:
        assert self.subscription is not None
        await self.tell(self.session, self.subscription)
        self.close(1000, "The session is over")

    async def handle(self, body: dict[str, Any]) -> None:
        kind = body.get("type", "message")
        if kind == "message":
            await self.message(self.session, body)
        elif kind in CONTROLS:
            await self.control(self.session, body, self.viewer)
        elif kind == "offer_tools":
            names = await self.tools.offer(body)
            await self.send({"type": "tools_offered", "tools": names, "timestamp": timestamp()})
        elif kind == "tool_result":
            await self.tools.result(body)
        else:
            raise unknown_type(kind, ["message", *COMMANDS])

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


class OfferedTools:
    """One socket's offer. The last socket that offers is the one the agent calls."""

    def __init__(self, session: Session, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._session = session
        self._send = send
        self._entries: list[dict[str, Any]] = []
        self._seconds: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[ExtraResult]] = {}

    @property
    def timeout(self) -> float:
        """The longest of the offered functions' limits; each has its own below that."""
        return max(self._seconds.values(), default=60.0)

    def schemas(self) -> Sequence[dict[str, Any]]:
        return self._entries

    async def offer(self, body: dict[str, Any]) -> list[str]:
        """Replace the offer; the names. :class:`InvalidRequest` for what cannot be offered."""
        from ..agent.extras import check_names  # loaded by the start hook, off the loop
        from . import schemas

        tools = schemas.parse(schemas.OfferTools, body).tools
        for number, tool in enumerate(tools):
            if tool.input_schema.get("type") != "object":
                where = f"tools.{number}.input_schema"
                raise InvalidRequest(f"{where} must have the type object.", details={where: 'needs "type": "object"'})
        entries = [tool.model_dump(exclude={"timeout"}) for tool in tools]
        check_names(entries)
        self._seconds = {tool.name: tool.timeout for tool in tools}
        self._entries = entries
        if entries:
            self._session.extra_tools = self
        else:
            self.withdraw()
        return [tool.name for tool in tools]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        """Ask the client; an answer that does not come in time is a ``TimeoutError``."""
        answer: asyncio.Future[ExtraResult] = asyncio.get_running_loop().create_future()
        self._waiting[tool_use_id] = answer
        try:
            async with asyncio.timeout(self._seconds.get(name, 60.0)):
                await self._send(
                    {
                        "type": "tool_call",
                        "tool": name,
                        "tool_use_id": tool_use_id,
                        "arguments": arguments,
                        "timestamp": timestamp(),
                    }
                )
                return await answer
        finally:
            self._waiting.pop(tool_use_id, None)

    async def result(self, body: dict[str, Any]) -> None:
        """A client's answer to a call."""
        from . import schemas  # as above

        found = schemas.parse(schemas.ToolResult, body)
        waiting = self._waiting.get(found.tool_use_id)
        if waiting is None or waiting.done():
            raise InvalidRequest("No call waits for this result.", hint="It took too long, or the turn was stopped.")
        image = await self._session.uploads.screenshot(found.image) if found.image else None
        if not waiting.done():
            self._answer(waiting, found.text, found.is_error, image)

    def withdraw(self) -> None:
        """The client left: what waits for it fails now, and the agent is no longer offered its functions."""
        if self._session.extra_tools is self:
            self._session.extra_tools = None
        for answer in self._waiting.values():
            if not answer.done():
                self._answer(answer, GONE, is_error=True)

    @staticmethod
    def _answer(
        waiting: asyncio.Future[ExtraResult], text: str, is_error: bool, image: Screenshot | None = None
    ) -> None:
        from ..agent.extras import ExtraResult  # as above

        waiting.set_result(ExtraResult(text, is_error, image))
