"""One message and everything that comes of it, until the turn's one end. Lives on the portal's loop."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ..errors import CambioError
from .channel import Channel, Listener
from .frames import fetch, fetch_now, fetch_some
from .message import Message
from .rest import Rest
from .turn import Step, Turn, TurnBuilder

TICK_SECONDS = 0.5
"""How often a reader hears that nothing happened, so that a display can show the time."""
STOP_SECONDS = 0.3
"""How long an interrupted cell waits for the turn's end before it returns without it."""


class Feed:
    """``start()``, then ``next()`` until ``over``; ``close()`` in any case.

    With ``pictures`` the screenshots of steps are fetched too, reduced, as messages of type ``picture``: the latest
    while the turn runs, an even choice of them and the desktop's final state at its end.
    """

    def __init__(
        self, channel: Channel, rest: Rest, content: str, metadata: Mapping[str, Any] | None, *, pictures: bool
    ) -> None:
        self.message_id = ""
        self._channel = channel
        self._rest = rest
        self._content = content
        self._client_id = uuid.uuid4().hex
        self._metadata = {**(metadata or {}), "client_id": self._client_id}
        self._pictures = pictures
        self._listener: Listener | None = None
        self._accepted = False
        self.over = False
        """The turn's end, or a refusal of the message, was seen."""
        self._unsettled = False
        self._builder = TurnBuilder(Turn(content))
        self._fetching: asyncio.Task[None] | None = None
        self._fetched: list[Message] = []

    async def start(self) -> None:
        """Send the message. Raises when the server cannot be reached or the session is not there."""
        await self._channel.connect()
        await self._channel.admission.acquire()
        self._unsettled = True
        self._listener = self._channel.listen()
        await self._channel.send({"content": self._content, "metadata": self._metadata})

    async def next(self) -> list[Message]:
        """Return the next messages of the turn; none when nothing came for a moment. Raises a refusal."""
        assert self._listener is not None
        found: list[Message] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                batch = await self._listener.get()
            for message in batch:
                found.extend(await self._take(message))
                if self.over:
                    return [*found, *await self._last_pictures()]
        fetched, self._fetched = self._fetched, []
        return [*fetched, *found]

    async def stop(self) -> None:
        """Ask the agent to stop; the turn's end still arrives through :meth:`next`."""
        await self._channel.send({"type": "stop"})

    async def abandon(self) -> list[Message]:
        """After an interrupt: stop the turn, wait a moment for its end, return what came until then."""
        found: list[Message] = []
        self._pictures = False
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.stop()
                while not self.over:
                    found.extend(await self.next())
        except (TimeoutError, CambioError):
            pass  # the stop is sent; its effect need not be seen here
        return found

    async def close(self) -> None:
        self._settled()
        if self._fetching is not None:
            self._fetching.cancel()
        if self._listener is not None:
            self._listener.close()

    async def _take(self, message: Message) -> list[Message]:
        if message.type == "connection":
            if not self._accepted and message.metadata.get("again"):
                await self._send_again_if_lost()
            return [message]
        if not self._accepted:
            return self._wait_for_acceptance(message)
        if message.refusal:  # of something else that this client asked for
            return []
        self._builder.feed(message)
        self.over = message.ends_turn
        if self._pictures and message.type == "tool_execution" and message.result.get("image_path"):
            self._fetch_latest()
        return [message]

    def _wait_for_acceptance(self, message: Message) -> list[Message]:
        """Nothing is ours before our message was accepted; the refusal of it names it."""
        if message.event == "user_message" and self._is_ours(message.metadata):
            self._accepted = True
            self._settled()
            self.message_id = str(message.metadata.get("message_id", ""))
            return [message]
        if message.refusal:
            self.over = True
            self._settled()
            return [message]
        return []

    def _settled(self) -> None:
        """Accepted, refused or given up: the next one may ask."""
        if self._unsettled:
            self._unsettled = False
            self._channel.admission.release()

    def _is_ours(self, metadata: Mapping[str, Any]) -> bool:
        inner = metadata.get("metadata")
        sent = inner.get("client_id") if isinstance(inner, Mapping) else metadata.get("client_id")
        return sent == self._client_id if sent is not None else metadata.get("message") == self._content

    async def _send_again_if_lost(self) -> None:
        """The connection broke before the message was acknowledged: was it stored?"""
        path = f"/sessions/{self._channel.session_id}/history"
        page = await self._rest.json("GET", path, params={"role": "user", "limit": 200})
        total = int(page.get("total") or 0)
        if total > 200:
            page = await self._rest.json("GET", path, params={"role": "user", "limit": 200, "offset": total - 200})
        stored = [row for row in page["messages"] if (row.get("metadata") or {}).get("client_id") == self._client_id]
        if not stored:
            await self._channel.send({"content": self._content, "metadata": self._metadata})

    def _fetch_latest(self) -> None:
        """One picture at a time while the turn runs: a fast agent does not make a queue."""
        if self._fetching is not None and not self._fetching.done():
            return
        steps = [step for step in self._builder.turn.steps if step.image_path]
        self._fetching = asyncio.create_task(self._fetch(steps[-1]))

    async def _fetch(self, step: Step) -> None:
        if not await fetch(self._rest, step):
            return
        self._fetched.append(_frame(step))
        if self._listener is not None and self._listener.queue.empty() and not self.over:
            self._listener.queue.put_nowait(Message("picture"))  # wakes the reader

    async def _last_pictures(self) -> list[Message]:
        if not self._pictures:
            return []
        if self._fetching is not None:
            await self._fetching
        self._fetched.clear()
        found = [_frame(step) for step in await fetch_some(self._rest, self._builder.turn.steps)]
        final = await fetch_now(self._rest, self._channel.session_id, "The desktop at the end of the turn")
        return found if final is None else [*found, Message("picture", metadata={"final": True, "picture": final})]


def _frame(step: Step) -> Message:
    return Message("picture", metadata={"tool_use_id": step.tool_use_id, "picture": step.picture})
