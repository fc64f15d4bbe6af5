"""What a user holds in a cell: one desktop, one conversation.

Sockets live on the portal's loop, so a session can be used from any event loop, and several one after another.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from . import calls, display, portal
from .channel import Channel
from .display import Table
from .feed import Exchange, run_now
from .files import Clipboard, Files, Programs, load_run
from .message import Answer, Approval, Approve, Message, Question, Questions
from .schemas import ask_typed
from .screenshot import ImageSource, Screenshot, example
from .tools import Tools
from .turn import Observer, Turn

if TYPE_CHECKING:
    from ..reports import Run
    from .workbench import Workbench

T = TypeVar("T")
HISTORY_COLUMNS = ("timestamp", "role", "content")


@calls
class Session:
    """Made by :meth:`Workbench.create_session` and :meth:`Workbench.session`; ``async with`` ends it.

    Methods raise :class:`~cambio_lab.errors.CambioError` subclasses with the server's message and hint.
    """

    def __init__(self, lab: Workbench, description: Mapping[str, Any]) -> None:
        self.lab = lab
        self.id = str(description["id"])
        self.description = dict(description)
        """The last known body of ``GET /sessions/{id}``."""
        self.turns: list[Turn] = []
        """Turns of this object, oldest first."""
        self.files = Files(self)
        self.clipboard = Clipboard(self)
        self.programs = Programs(self)
        self.channel = Channel(lab.address, self.id, notice=lab.rest.notice)
        """The agent socket; belongs to the portal's loop."""
        self.tools = Tools(self.channel, lab.rest)
        self.viewer = f"program-{uuid.uuid4().hex[:8]}"
        """By this name others are told who answered."""
        self._questions = Questions(self)
        self.observer: Observer | None = None

    @property
    def name(self) -> str:
        return str(self.description.get("name") or self.id)

    @property
    def status(self) -> str:
        """``active``, ``inactive`` or ``error``, as last known."""
        return str(self.description.get("status") or "")

    @property
    def vnc_url(self) -> str:
        """Opens the desktop in a browser that is logged in to the server."""
        return self.lab.absolute(str(self.description.get("vnc_url") or f"/vnc/{self.id}"))

    async def send(
        self,
        content: str,
        *,
        metadata: Mapping[str, Any] | None = None,
        images: Iterable[ImageSource] = (),
        show: bool | None = None,
        screenshots: bool | None = None,
        approve: Approve | None = None,
        when: Literal["idle", "next", "now"] = "idle",
        like: Run | None = None,
    ) -> Turn:
        """Send a message, show the turn as it goes on, return it when it has ended.

        In a notebook the cell shows it; in a terminal, or with ``show=True``, text is printed; ``show=False`` shows
        nothing. ``screenshots`` fetches those of the steps (default: in a notebook). ``approve`` is asked about each
        call that waits for approval; without it, people answer in the panel. ``images`` (paths, bytes or PIL images)
        are shown to the agent with the text. An interrupt or a cancellation stops the turn. Raises the turn's error.

        While a turn runs, a message is refused; with ``when="next"`` the agent gets it before its next step, and the
        running turn is returned at once; ``when="now"`` stops the running turn first. ``like`` is a run that shows how
        it is done, such as a demonstration: the agent gets its steps and key screenshots.
        """
        if like is not None:
            shown = await asyncio.to_thread(example, like)
            content, images = f"{content}\n\n{shown.text}", [*shown.images, *images]
        options: dict[str, Any] = {"screenshots": screenshots, "images": images, "fields": {"when": when}}
        return await Exchange(self, content, metadata, show, **options).follow(approve)

    async def ask(
        self,
        content: str,
        *,
        schema: type[T],
        metadata: Mapping[str, Any] | None = None,
        images: Iterable[ImageSource] = (),
        show: bool | None = None,
        screenshots: bool | None = None,
        approve: Approve | None = None,
    ) -> T:
        """Send a message and return its answer as a ``schema``: a pydantic model, or any other type pydantic knows.

        The server has the agent answer in JSON that fits, and asks it once more when it does not; so does this method
        for what only the type itself can check (its validators). Raises
        :class:`~cambio_lab.errors.AnswerDoesNotFit`, or what :meth:`send` raises. The turn is the last of ``turns``.
        """

        def send(content: str, fields: dict[str, Any]) -> Awaitable[Turn]:
            options: dict[str, Any] = {"screenshots": screenshots, "images": images, "fields": fields}
            return Exchange(self, content, metadata, show, **options).follow(approve)

        return await ask_typed(schema, content, send)

    def send_blocking(self, content: str, *, show: bool | None = None) -> Turn:
        """:meth:`send` for code that is not ``async`` (magics, a script's main thread)."""
        return run_now(Exchange(self, content, None, show, blocking=True).follow(None))

    async def stream(self, content: str, *, metadata: Mapping[str, Any] | None = None) -> AsyncGenerator[Message, None]:
        """``async for message in session.stream("...")``: every message of the turn, pieces of text included.

        The last one is the ``agent_response``; a turn that fails raises. Leaving the loop early stops the turn.
        """
        exchange = Exchange(self, content, metadata, False, screenshots=False)
        try:
            await portal.call(exchange.begin())
            while not exchange.feed.over:
                batch = await portal.call(exchange.feed.next())
                exchange.take(batch)
                for message in batch:
                    if message.type == "error" and exchange.turn.error is not None:
                        raise exchange.turn.error
                    yield message
            await exchange.tell_observer()
        finally:
            if not exchange.turn.done:
                exchange.leave()
            exchange.finish()

    async def screenshot(self, *, width: int | None = None) -> Screenshot:
        """The desktop now; ``width`` gives a reduced JPEG."""
        params = {} if width is None else {"width": width}
        data, media_type = await portal.call(self.lab.rest.bytes(f"{self.path}/screenshot", params=params))
        return Screenshot(data, media_type or "image/png", f"The desktop of {self.name}")

    async def history(self, *, limit: int = 100, offset: int = 0, role: str | None = None) -> Table:
        """The conversation as the server stored it, oldest first."""
        params = {"limit": limit, "offset": offset, **({} if role is None else {"role": role})}
        page = await self._json("GET", "/history", params=params)
        return Table(page["messages"], HISTORY_COLUMNS, total=page.get("total"))

    async def clear_history(self) -> int:
        """Forget the conversation; returns how many messages were cleared."""
        return int((await self._json("DELETE", "/history"))["cleared_messages"])

    async def steps(self) -> Table:
        """Every step of the session as the server recorded it."""
        page = await self._json("GET", "/steps")
        return Table(page["steps"], ("step", "tool", "status", "text"), total=page["total"])

    async def stop(self) -> None:
        """Stop the running turn; what was said so far is its answer."""
        await self._say("stop")

    async def pause(self) -> None:
        """Hold the agent before its next action."""
        await self._say("pause")

    async def resume(self) -> None:
        await self._say("resume")

    async def approve(self, tool_use_id: str | None = None) -> None:
        """Let the waiting action run. Raises ``SessionConflict`` when none waits."""
        await self._decide("approve", tool_use_id)

    async def deny(self, tool_use_id: str | None = None) -> None:
        """Refuse the waiting action; the agent is told and goes on without it."""
        await self._decide("deny", tool_use_id)

    def on_question(self, function: Answer) -> Answer:
        """Call ``function(question)`` when the agent asks or hands over; return it unchanged (also a decorator).

        What it returns is the answer; ``None`` leaves it to a person. An ``async`` function runs on the loop of the
        cell that gave it, another one in a thread.
        """
        self._questions.answer_with(function)
        return function

    async def answer(self, text: str = "", tool_use_id: str | None = None) -> None:
        """Answer the question that waits; empty hands the desktop back. Raises ``SessionConflict`` when none waits."""

        def confirms(found: Message) -> bool:  # another client's answer is no confirmation
            return found.event == "question_answered" and found.metadata.get("by") == self.viewer

        message = {"type": "answer", "text": text, "viewer": self.viewer}
        message |= {} if tool_use_id is None else {"tool_use_id": tool_use_id}
        await portal.call(self.channel.ask(message, confirms))

    async def wait_for_question(self, *, timeout: float = 60.0) -> Question:
        """What the agent asks, now or soon. Raises ``TimeoutError``."""
        return Question.parse(self, await portal.call(self.channel.until(lambda _: self.channel.question, timeout)))

    async def wait_for_approval(self, *, timeout: float = 60.0) -> Approval:
        """The call that waits for approval, now or soon. Raises ``TimeoutError``."""
        return Approval.parse(self, await portal.call(self.channel.until(lambda _: self.channel.pending, timeout)))

    async def wait_for(self, status: str, *, timeout: float = 60.0) -> Message:
        """Wait until the session's state is ``status`` (``idle``, ``waiting_approval``, ...); returns its message."""
        return await portal.call(self.channel.until(lambda one: one if one.status == status else None, timeout))

    async def refresh(self) -> dict[str, Any]:
        """Ask the server; return and keep ``GET /sessions/{id}``."""
        self.description = await self._json("GET", "")
        return self.description

    async def update(self, **changes: Any) -> dict[str, Any]:
        """Change ``name``, ``approval`` or ``display`` of the running session."""
        self.description = {**self.description, **await self._json("PATCH", "", json=changes)}
        return self.description

    async def end(self) -> None:
        """End the session and remove its desktop. Ending one that has ended is no error."""
        if self.observer is not None:
            await self.observer.ending()
        response = await portal.call(self.lab.rest.request("DELETE", self.path, accept=(409,)))
        if response.is_success:
            self.description = {**self.description, "status": "inactive", "ended_at": response.json().get("ended_at")}
        await self.detach()

    async def detach(self) -> None:
        """Close this object's connections; the session goes on."""
        if self.observer is not None:
            await self.observer.close()
            self.observer = None
        await portal.call(self.tools.aclose())
        await portal.call(self.channel.close())

    @property
    def run(self) -> Run:
        """The recorded run so far. Blocks while it is fetched; ``await session.load_run()`` does not."""
        return portal.run(self.load_run())

    async def load_run(self) -> Run:
        """The recorded run so far."""
        return await load_run(self.lab, f"{self.path}/run")

    def panel(self, **options: Any) -> Any:
        """Live desktop, chat and timeline of this session as a widget."""
        return display.host.panel(self, **options)

    @property
    def path(self) -> str:
        return f"/sessions/{self.id}"

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.end()

    def __repr__(self) -> str:
        return f"Session({self.name!r}, {self.status}, id={self.id!r})"

    async def _say(self, kind: str) -> None:
        await portal.call(self.channel.send({"type": kind}))

    async def _decide(self, kind: str, tool_use_id: str | None) -> None:
        message = {"type": kind, **({} if tool_use_id is None else {"tool_use_id": tool_use_id})}
        await portal.call(self.channel.ask(message, lambda found: found.event == "approval_decided"))

    async def _json(self, method: str, below: str, **options: Any) -> Any:
        return await portal.call(self.lab.rest.json(method, self.path + below, **options))
