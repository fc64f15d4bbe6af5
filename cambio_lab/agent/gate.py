"""Stop, pause, approve: the one place where a person reaches into a running turn.

A :class:`Gate` lives as long as its session. While a turn runs, everything the loop waits for passes through
:meth:`Gate.race` or :meth:`Gate.stream`, which end at once when the turn is halted: by a person (:class:`Stopped`),
by a limit of time (:class:`LimitReached`) or by the death of the desktop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..events import ApprovalRequested, QuestionAnswered, QuestionAsked
from .tools import HAND_OVER, ApprovalPolicy, needs_approval, shown

T = TypeVar("T")
Verdict = Literal["approved", "denied", "timeout", "stopped"]

CANCEL_PATIENCE = 0.08  # a cancelled call that cleans up for longer is left to finish behind the turn's back
STRAGGLER_PATIENCE = 30.0
log = logging.getLogger(__name__)


class TurnHalted(Exception):
    """Something from outside ended the turn; the subclasses say what."""


class Stopped(TurnHalted):
    """A person stopped the turn."""


class LimitReached(TurnHalted):
    """A limit of the session or the message was reached; ``name`` is the option's."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(words)
        self.name, self.words = name, words


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """What a person said during a turn, or did on the desktop (a ``note``)."""

    message_id: str
    content: str
    note: bool = False


class Gate:
    """One per session; survives turns. All methods belong to the event loop's thread."""

    def __init__(self, policy: ApprovalPolicy = "risky", timeout: float = 300.0) -> None:
        self.policy: ApprovalPolicy = policy
        self.timeout = timeout
        self.pending: ApprovalRequested | None = None
        self.question: QuestionAsked | None = None
        """What the agent waits for a person to answer."""
        self.answering: Callable[[QuestionAsked], Awaitable[QuestionAnswered]] | None = None
        """Answers in place of a person."""
        self._answer: asyncio.Future[QuestionAnswered] | None = None
        self.on_stop: Callable[[], None] | None = None
        """Called instead of stopping at once: a replay stops the turn where it was stopped when it was recorded."""
        self._verdict: asyncio.Future[tuple[Verdict, str]] | None = None
        self._halt: asyncio.Future[TurnHalted | Exception] | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._admitted: set[str] = set()
        self._stragglers: set[asyncio.Task[Any]] = set()
        self.messages: deque[QueuedMessage] = deque()
        """Waiting for the next request."""
        self.note: QueuedMessage | None = None
        """What a person did on the desktop since the agent was last told."""

    @property
    def paused(self) -> bool:
        return not self._resumed.is_set()

    def stop(self) -> None:
        """End the running turn; without one, nothing happens."""
        if self.on_stop is not None:
            self.on_stop()
        else:
            self.stop_now()

    def stop_now(self) -> None:
        self.halt(Stopped("the user stopped the agent"))

    def take_back(self, message_id: str) -> bool:
        """Remove a message that still waits; false when it does not."""
        found = [message for message in self.messages if message.message_id == message_id]
        for message in found:
            self.messages.remove(message)
        return bool(found)

    def next_message(self, *, notes: bool = True) -> QueuedMessage | None:
        """Take the note, or the message that waits longest; a note alone does not prolong a turn."""
        if notes and (note := self.note) is not None:
            self.note = None
            return note
        return self.messages.popleft() if self.messages else None

    def pause(self) -> None:
        """Hold before the next action or request; what runs now finishes."""
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    def decide(self, tool_use_id: str | None, approve: bool, by: str = "") -> bool:
        """Answer the pending request; ``None`` means whichever it is. False when nothing matches."""
        if self.pending is None or self._verdict is None or self._verdict.done():
            return False
        if tool_use_id is not None and tool_use_id != self.pending.tool_use_id:
            return False
        self._verdict.set_result(("approved" if approve else "denied", by))
        return True

    def answer(self, tool_use_id: str | None, text: str, by: str = "") -> bool:
        """Answer the question that waits; ``None`` means whichever it is. False when nothing matches."""
        if self.question is None or self._answer is None or self._answer.done():
            return False
        if tool_use_id is not None and tool_use_id != self.question.tool_use_id:
            return False
        self._answer.set_result(QuestionAnswered(self.question.tool_use_id, "answered", text, by))
        return True

    @property
    def handed_over(self) -> bool:
        """Whether the agent gave the desktop to a person and has not got it back."""
        waits = self._answer is not None and not self._answer.done()
        return waits and self.question is not None and self.question.tool == HAND_OVER

    # The loop's side
    def begin(self) -> None:
        """A turn starts: a stop from before it is forgotten, a pause is not."""
        self._halt = asyncio.get_running_loop().create_future()
        self._admitted.clear()

    def end(self) -> None:
        """The turn is over; nothing can be halted any more."""
        self._halt = None
        self._admitted.clear()

    def halt(self, reason: TurnHalted | Exception) -> None:
        """End the running turn with ``reason``; the first reason counts."""
        if self._halt is not None and not self._halt.done():
            self._halt.set_result(reason)

    def check(self) -> None:
        """Raise the reason if the turn has been halted."""
        if self._halt is not None and self._halt.done():
            raise self._halt.result()

    async def race(self, awaitable: Awaitable[T]) -> T:
        """The awaitable's result, unless the turn is halted first: then it is cancelled and the reason raised."""
        task = asyncio.ensure_future(awaitable)
        halt = self._halt
        try:
            if halt is None:
                return await task
            both: set[asyncio.Future[Any]] = {task, halt}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise halt.result()
        finally:
            if not task.done():
                await self._cancel(task)

    async def stream(self, source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Yield the source's items, read ahead by a task; a halt ends it between any two bytes."""
        queue: asyncio.Queue[tuple[T | None, BaseException | None]] = asyncio.Queue(maxsize=64)
        pump = asyncio.create_task(_pump(source, queue))
        halt = self._halt

        def interrupt(reason: asyncio.Future[TurnHalted | Exception]) -> None:
            """Put the reason in front of everything that was read ahead."""
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait((None, reason.result()))

        if halt is not None:
            halt.add_done_callback(interrupt)
        try:
            while True:
                item, error = await queue.get()
                if isinstance(error, StopAsyncIteration):
                    return
                if error is not None:
                    raise error
                yield item  # type: ignore[misc]
        finally:
            if halt is not None:
                halt.remove_done_callback(interrupt)
            if not pump.done():
                await self._cancel(pump)

    async def passage(self) -> None:
        """Wait while paused; raises when halted."""
        self.check()
        if self.paused:
            await self.race(self._resumed.wait())

    def request(self, tool_use_id: str, tool: str, arguments: dict[str, Any], address: str = "") -> ApprovalRequested:
        """Open a request for approval; :meth:`verdict` waits for its answer. ``address``: of the page acted on."""
        self.pending = ApprovalRequested(
            tool_use_id=tool_use_id,
            tool=tool,
            arguments=arguments,
            shown=shown(tool, arguments) + (f" on {json.dumps(address)}" if address else ""),
            expires_at=time.time() + self.timeout,
        )
        self._verdict = asyncio.get_running_loop().create_future()
        return self.pending

    async def verdict(self) -> tuple[Verdict, str]:
        """Return how the open request ended, and by whom; no answer in time is a denial (``timeout``)."""
        assert self._verdict is not None, "request() comes first"
        try:
            return await self.race(asyncio.wait_for(self._verdict, self.timeout))
        except TimeoutError:
            return "timeout", ""
        finally:
            self.pending = self._verdict = None

    def ask(self, question: QuestionAsked) -> None:
        """Open a question; :meth:`reply` waits for its answer."""
        self.question = question
        self._answer = asyncio.get_running_loop().create_future()

    async def reply(self) -> QuestionAnswered:
        """Return how the open question ended; no answer in time is its default (``timeout``)."""
        assert self._answer is not None and self.question is not None, "ask() comes first"
        asked = self.question
        waiting = self._answer if self.answering is None else self.answering(asked)
        try:
            return await self.race(asyncio.wait_for(waiting, max(0.0, asked.expires_at - time.time())))
        except TimeoutError:
            return QuestionAnswered(asked.tool_use_id, "timeout", asked.default)
        finally:
            self.question = self._answer = None

    def needs_approval(self, tool_use_id: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        """Return whether this call waits for a person."""
        return needs_approval(self.policy, tool, arguments)

    def admit(self, tool_use_id: str) -> None:
        """This call passed the policy; the toolset checks it again right before it acts."""
        self._admitted.add(tool_use_id)

    def admitted(self, tool_use_id: str) -> bool:
        return tool_use_id in self._admitted

    async def settle(self) -> None:
        """Wait until calls that were cancelled earlier have cleaned up behind themselves."""
        if self._stragglers:
            await self.race(asyncio.wait(set(self._stragglers), timeout=STRAGGLER_PATIENCE))

    async def aclose(self) -> None:
        """Halt the turn and wait for everything that was started through this gate."""
        self.stop()
        for task in self._stragglers:
            task.cancel()
        if self._stragglers:
            await asyncio.wait(set(self._stragglers), timeout=5)

    async def _cancel(self, task: asyncio.Future[Any]) -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_PATIENCE)
        if task.done():
            _swallow(task)
        elif isinstance(task, asyncio.Task):
            self._stragglers.add(task)
            task.add_done_callback(self._stragglers.discard)
            task.add_done_callback(_swallow)


async def _pump(source: AsyncGenerator[T, None], queue: asyncio.Queue[tuple[T | None, BaseException | None]]) -> None:
    try:
        async for item in source:
            await queue.put((item, None))
    except Exception as error:
        await queue.put((None, error))
    else:
        await queue.put((None, StopAsyncIteration()))
    finally:
        await source.aclose()


def _swallow(task: asyncio.Future[Any]) -> None:
    """Fetch a cancelled call's outcome: an error while it cleaned up is told to the log, not lost."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a cancelled call failed while it cleaned up: %s", error)
