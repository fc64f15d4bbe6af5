"""Follows a session from its beginning and keeps the record below its panel up to date.

A panel's chat goes from the browser to the server without the kernel; a saved notebook shows it all the same.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

from IPython.display import display

from ..client import portal
from ..client.channel import Channel
from ..client.discovery import Address
from ..client.feed import fetch_steps
from ..client.message import Message
from ..client.rest import Rest
from ..client.screenshot import fetch
from ..client.session import Session
from ..client.turn import Turn, TurnBuilder
from ..errors import CambioError
from . import bundle, escape

CATCH_UP_SECONDS = 5.0


class Handle(Protocol):
    """An output that can be replaced."""

    def update(self, content: dict[str, Any], *, raw: bool) -> None: ...


class Follower:
    """Lives on the portal's loop; ``add()`` outputs, ``close()`` when the session is over."""

    def __init__(self, address: Address, rest: Rest, session_id: str, name: str) -> None:
        self.turns: list[Turn] = []
        self.failure: CambioError | None = None
        self.over = False
        self._progress = asyncio.Condition()
        self._rest = rest
        self._name = name
        self._session_id = session_id
        self._channel = Channel(address, session_id, after=0, stream=False)
        self._handles: list[Handle] = []
        self._builder: TurnBuilder | None = None
        self._task: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """Take the events of a session that has ended: its socket tells nothing."""
        position, more = 0, True
        while more:
            params = {"after": position, "limit": 200}
            page = await self._rest.json("GET", f"/sessions/{self._session_id}/events", params=params)
            for event in page["events"]:
                position = event["sequence"]
                await self._take(Message.parse(event))
            more = page["has_next"]

    async def add(self, handle: Handle) -> None:
        """Keep ``handle`` up to date from now on."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name=f"record of {self._session_id}")
        self._handles.append(handle)
        await self._show()

    async def _caught_up(self, message_id: str) -> tuple[list[Handle], dict[str, Any]]:
        """The outputs and what they should show, once the turn of ``message_id`` (empty: all so far) is in it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS), self._progress:
                await self._progress.wait_for(lambda: self._knows(message_id))
        return self._handles, await self._content()

    def _knows(self, message_id: str) -> bool:
        if self.failure is not None:
            return True
        if not message_id:
            return self._builder is None
        current = self._builder and self._builder.turn  # its screenshots are still being fetched
        return any(turn.message_id == message_id and turn.done for turn in self.turns if turn is not current)

    async def turn_ended(self, turn: Turn | None) -> None:
        """Show the record up to ``turn`` as output of the running cell: a notebook keeps only those."""
        show_all(*await portal.call(self._caught_up("" if turn is None else turn.message_id)))

    async def ending(self) -> None:
        """Open the record: from now on it is all there is to see."""
        self.over = True
        await self.turn_ended(None)

    async def close(self) -> None:
        """Stop following; what is shown stays."""
        await portal.call(self._close())

    async def _close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._channel.close()

    async def _follow(self) -> None:
        listener = self._channel.listen()
        try:
            await self._channel.connect()
            while True:
                changed = False
                for message in await listener.get():
                    changed = await self._take(message) or changed
                if changed:
                    await self._show()
                    async with self._progress:
                        self._progress.notify_all()
        except CambioError as error:
            self.failure = error  # the session is over, or the server went away: the record stays as it is
            async with self._progress:
                self._progress.notify_all()
        finally:
            listener.close()

    async def _take(self, message: Message) -> bool:
        """Whether a turn ended."""
        if message.event == "user_message":
            turn = Turn(str(message.metadata.get("message", "")), self._session_id, self._name)
            turn.message_id = str(message.metadata.get("message_id", ""))
            self.turns.append(turn)
            self._builder = TurnBuilder(turn)
        if self._builder is None:
            return False
        self._builder.feed(message)
        if message.ends_turn:
            await fetch_steps(self._rest, self._builder.turn.steps)
            self._builder = None
        return message.ends_turn

    async def _show(self) -> None:
        if self._handles:
            show_all(self._handles, await self._content())

    async def _content(self) -> dict[str, Any]:
        path = f"/sessions/{self._session_id}/screenshot"
        if self.turns and (final := await fetch(self._rest, path, f"The desktop of {self._name}")):
            self.turns[-1].screenshot = final
        return await asyncio.to_thread(folded, list(self.turns), self._name, unfold=self.over)


async def follow(session: Session, handle: Handle) -> None:
    """Keep the output ``handle`` up to date with the whole session's record. Awaited on the portal's loop."""
    if not isinstance(session.observer, Follower):
        session.observer = Follower(session.lab.address, session.lab.rest, session.id, session.name)
        if session.status != "active":
            await session.observer.read()
    await session.observer.add(handle)


def show_all(handles: list[Handle], content: dict[str, Any]) -> None:
    """Replace every output by ``content``."""
    for handle in handles:
        handle.update(content, raw=True)


def folded(turns: list[Turn], name: str, *, unfold: bool = False) -> dict[str, Any]:
    """The record of a whole session: folded away below a live panel, readable everywhere."""
    title = f"Record of {name}: {len(turns)} turn{'' if len(turns) == 1 else 's'}"
    page = bundle(turns)
    state = " open" if unfold else ""
    return {
        "text/html": f"<details{state}><summary>{escape(title, 300)}</summary>\n{page['text/html']}\n</details>",
        "text/plain": f"{title}\n{page['text/plain']}".rstrip(),
    }


def show_raw(content: dict[str, Any], metadata: dict[str, Any] | None = None) -> Any:
    """Display a mimebundle; return a handle whose ``update(bundle, raw=True)`` replaces it."""
    return display(content, metadata=metadata, raw=True, display_id=True)  # type: ignore[no-untyped-call]
