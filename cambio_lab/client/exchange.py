"""One message's feed, turn and display, driven by ``await`` or by blocking."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CambioError, InvalidRequest, ServerError
from ..jupyter import shell
from ..jupyter.live import live
from .feed import Feed
from .message import Message
from .portal import portal
from .turn import Turn, TurnBuilder

if TYPE_CHECKING:
    from .session import Session


class Exchange:
    """Made for each message; :class:`Session` drives it."""

    def __init__(
        self,
        session: Session,
        content: str,
        metadata: Mapping[str, Any] | None,
        show: bool | None,
        *,
        pictures: bool | None = None,
    ) -> None:
        if not isinstance(content, str) or not content.strip():
            raise InvalidRequest("The message is empty.", hint='session.send("Open a terminal")')
        self.turn = Turn(content, session.id, session.name)
        self._tools = session.tools
        self._builder = TurnBuilder(self.turn)
        self._display = live(show)
        self.feed = Feed(
            session.channel,
            session.lab.rest,
            content,
            metadata,
            pictures=shell.in_kernel() if pictures is None else pictures,
        )
        session.turns.append(self.turn)

    async def begin(self) -> None:
        """Send the message, after the tools that were offered before it. Awaited on the portal's loop."""
        await self._tools.settled()
        await self.feed.start()

    def take(self, batch: list[Message]) -> list[Message]:
        """Show what came; returns the messages that ask for an approval."""
        for message in batch:
            if self._builder.feed(message):
                self._display.changed(self._builder, message)
        self._builder.tick()
        self._display.tick(self._builder)
        return [message for message in batch if message.event == "approval"]

    def failed(self, error: Exception) -> None:
        """The turn cannot be followed any more, or what was to be decided in it cannot be."""
        if not self.turn.done:
            self.turn.error = self.turn.error or (error if isinstance(error, CambioError) else CambioError(str(error)))
            if not isinstance(error, ServerError):
                self.leave()

    def stopped(self, found: list[Message]) -> str:
        """Take what came until the turn was left; return what to say about it."""
        self.take(found)
        self.turn.stopped = True
        return f"The turn was stopped: {self.turn.outcome}."

    def leave(self) -> None:
        """Stop the turn without waiting for it."""
        portal.submit(self.feed.abandon())

    def finish(self) -> None:
        portal.submit(self.feed.close())
        self._display.finished(self.turn)

    def result(self) -> Turn:
        if self.turn.error is not None:
            raise self.turn.error
        return self.turn


async def in_spite_of_cancellation(exchange: Exchange) -> list[Message]:
    """A cancelled task may still await; a second interrupt ends the wait."""
    try:
        return await portal.call(exchange.feed.abandon())
    except (asyncio.CancelledError, KeyboardInterrupt, CambioError):
        return []
