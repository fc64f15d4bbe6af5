"""One message, everything that comes of it until the turn's one end, and its display."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CambioError, InvalidRequest, ServerError
from . import display, portal
from .channel import Channel, Listener
from .message import Approve, Message, decide
from .rest import Rest
from .screenshot import ImageSource, fetch, put_image
from .turn import Step, Turn, TurnBuilder, TurnCancelled, TurnInterrupted, thin

if TYPE_CHECKING:
    from .session import Session

T = TypeVar("T")
STEP_WIDTH = 640
MAX_SCREENSHOTS = 24
"""Screenshots that are fetched of one turn's steps, evenly spread; a filmstrip shows as many."""
TICK_SECONDS = 0.5
"""How often a reader hears that nothing happened, so that a display can show the time."""
STOP_SECONDS = 0.3
"""How long an interrupted cell waits for the turn's end before it returns without it."""


class Feed:
    """``start()``, then ``next()`` until ``over``; ``close()`` in any case. Lives on the portal's loop."""

    def __init__(self, channel: Channel, rest: Rest, message: dict[str, Any]) -> None:
        self._channel = channel
        self._rest = rest
        self.queued = False
        """The message joins the turn that runs: nothing more of it comes here."""
        self._client_id = uuid.uuid4().hex
        self.message = {**message, "metadata": {**message["metadata"], "client_id": self._client_id}}
        self._listener: Listener | None = None
        self._accepted = False
        self.over = False
        """The turn's end, or a refusal of the message, was seen."""
        self._unsettled = False

    async def start(self) -> None:
        """Send the message. Raises when the server cannot be reached or the session is not there."""
        await self._channel.connect()
        await self._channel.admission.acquire()
        self._unsettled = True
        self._listener = self._channel.listen()
        await self._channel.send(self.message)

    async def next(self) -> list[Message]:
        """Return the next messages of the turn; none when nothing came for a moment. Raises a refusal."""
        assert self._listener is not None
        batch: list[Message] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_SECONDS):
                batch = await self._listener.get()
        return [message for message in batch if not self.over and await self._take(message)]

    async def abandon(self) -> list[Message]:
        """After an interrupt: stop the turn, wait a moment for its end, return what came until then."""
        found: list[Message] = []
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._channel.send({"type": "stop"})
                while not self.over:
                    found.extend(await self.next())
        except (TimeoutError, CambioError):
            pass  # the stop is sent; its effect need not be seen here
        return found

    async def close(self) -> None:
        self._settled()
        if self._listener is not None:
            self._listener.close()

    async def _take(self, message: Message) -> bool:
        """Whether a message belongs to this turn: nothing does before ours was accepted, but the refusal of it."""
        if message.type == "connection":
            if not self._accepted and message.metadata.get("again"):  # the connection broke before: was it stored?
                params = {"role": "user", "limit": 200, "sort": "timestamp:desc"}
                page = await self._rest.json("GET", f"/sessions/{self._channel.session_id}/history", params=params)
                if all(row["metadata"].get("client_id") != self._client_id for row in page["messages"]):
                    await self._channel.send(self.message)
            return True
        if self._accepted:
            self.over = message.ends_turn
            return not message.refusal  # of something else that this client asked for
        ours = message.metadata.get("client_id") == self._client_id
        self._accepted = ours and message.event == "user_message"
        self.queued = ours and message.event == "message_queued"
        self.over = message.refusal or self.queued
        if self._accepted or self.over:
            self._settled()
        return self._accepted or message.refusal

    def _settled(self) -> None:
        """Accepted, refused or abandoned: the next message may be sent."""
        if self._unsettled:
            self._unsettled = False
            self._channel.admission.release()


async def fetch_step(rest: Rest, step: Step) -> bool:
    """Fill ``step.screenshot``; false when the server does not give it: an image less, the step itself is known."""
    if step.screenshot is None:
        full = await fetch(rest, step.image_path, f"The screen after step {step.number}")
        step.screenshot = full and await asyncio.to_thread(full.jpeg, width=STEP_WIDTH, quality=65)
    return step.screenshot is not None


async def fetch_steps(rest: Rest, steps: Sequence[Step]) -> list[Step]:
    """Fetch an even choice of the steps' screenshots; return the steps that have one."""
    chosen = thin([step for step in steps if step.image_path], MAX_SCREENSHOTS)
    return [step for step in chosen if await fetch_step(rest, step)]


class Exchange:
    """One message from the caller's side: its feed on the portal, its turn, its display."""

    def __init__(
        self,
        session: Session,
        content: str,
        metadata: Mapping[str, Any] | None,
        show: bool | None,
        *,
        screenshots: bool | None = None,
        images: Iterable[ImageSource] = (),
        fields: Mapping[str, Any] | None = None,
        blocking: bool = False,
    ) -> None:
        """``blocking``: :meth:`follow` waits for the portal without an event loop; run it with :func:`run_now`."""
        if not isinstance(content, str) or not content.strip():
            raise InvalidRequest("The message is empty.", hint='await session.send("Open a terminal")')
        self.turn = Turn(content, session.id, session.name)
        self._session = session
        self._images = list(images)
        self._builder = TurnBuilder(self.turn)
        self._display = display.host.turn(show)
        self._screenshots = display.host.rich if screenshots is None else screenshots
        self._fetching: Future[bool] | None = None
        message = {"content": content, "metadata": metadata or {}, "when": "idle", **(fields or {})}
        self.feed = Feed(session.channel, session.lab.rest, message)
        self._blocking = blocking
        session.turns.append(self.turn)

    async def follow(self, approve: Approve | None) -> Turn:
        """Carry the message to its turn's end, from the caller's side."""
        try:
            await self._on_portal(self.begin())
            while not self.feed.over:
                for message in self.take(await self._on_portal(self.feed.next())):
                    if approve is not None:
                        await decide(self._session, message, approve)
            await self._on_portal(self.complete())
        except GeneratorExit:
            self.leave()
            raise
        except (asyncio.CancelledError, KeyboardInterrupt) as interrupt:
            self.take(await self.abandon())
            self.turn.stopped = True
            kind = TurnInterrupted if isinstance(interrupt, KeyboardInterrupt) else TurnCancelled
            raise kind(f"The turn was stopped: {self.turn.outcome.replace(', stopped', '')}.") from None
        except Exception as error:  # the turn, or what is to be decided in it, cannot be followed any more
            if not self.turn.done:
                known = error if isinstance(error, CambioError) else CambioError(str(error))
                self.turn.error = self.turn.error or known
                if not isinstance(error, ServerError):
                    self.leave()
            raise
        finally:
            self.finish()
        if self.feed.queued:  # nothing more of it comes: it belongs to the turn before
            turns = self._session.turns
            turns.remove(self.turn)
            return turns[-1] if turns else self.turn
        await self.tell_observer()
        if self.turn.error is not None:
            raise self.turn.error
        return self.turn

    async def _on_portal(self, work: Coroutine[Any, Any, T]) -> T:
        return portal.run(work) if self._blocking else await portal.call(work)

    async def tell_observer(self) -> None:
        """Show the turn in the session's record, if it has one."""
        if (observer := self._session.observer) is not None:
            told = observer.turn_ended(self.turn)
            await (self._on_portal(told) if self._blocking else told)

    async def begin(self) -> None:
        """Send the message, after its images and the tools that were offered before. Awaited on the portal's loop."""
        await self._session.tools.settled()
        rest, path = self._session.lab.rest, self._session.path
        if self._images:
            self.feed.message["images"] = [await put_image(rest, path, image) for image in self._images]
        await self.feed.start()

    def take(self, batch: list[Message]) -> list[Message]:
        """Show what came; return the messages that ask for an approval."""
        for message in batch:
            if self._builder.feed(message):
                self._display.changed(self._builder, message)
        self._builder.tick()
        self._display.tick(self._builder)
        # One screenshot at a time: a fast agent does not make a queue.
        if self._screenshots and not self.turn.done and (self._fetching is None or self._fetching.done()):
            latest = next((step for step in reversed(self.turn.steps) if step.image_path), None)
            if latest is not None and latest.screenshot is None:
                self._fetching = portal.submit(fetch_step(self._session.lab.rest, latest))
        return [message for message in batch if message.event == "approval"]

    async def complete(self) -> None:
        """Fetch an even choice of the steps' screenshots, and the desktop's. Awaited on the portal's loop."""
        if self._screenshots and not self.feed.queued:
            rest, path = self._session.lab.rest, f"{self._session.path}/screenshot"
            await fetch_steps(rest, self.turn.steps)
            self.turn.screenshot = await fetch(rest, path, "The desktop at the end of the turn")

    def leave(self) -> None:
        """Stop the turn without waiting for it."""
        portal.submit(self.feed.abandon())

    def finish(self) -> None:
        portal.submit(self.feed.close())
        if not self.feed.queued:
            self._display.finished(self.turn)

    async def abandon(self) -> list[Message]:
        """Stop the turn from a task that was cancelled, which may still await; a second interrupt ends the wait."""
        try:
            return await self._on_portal(self.feed.abandon())
        except (asyncio.CancelledError, KeyboardInterrupt, CambioError):
            return []


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, without an event loop."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("the coroutine waits for an event loop")
