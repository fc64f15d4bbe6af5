"""The calls of one reply: carried out in order, each answered exactly once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from ..desktop.base import Desktop, Screenshot
from ..errors import ActionError, DesktopLost
from ..events import ApprovalDecided, Event, StatusChanged, ToolFinished, ToolStarted
from .gate import Gate, LimitReached, Stopped, TurnHalted
from .reply import Reply
from .tools.call import (
    CUT_OFF,
    ENDED_EARLY,
    HALTED,
    INTERRUPTED,
    LIMIT,
    STOPPED,
    Call,
    Outcome,
    Tool,
    failed,
    image_block,
    result_block,
)
from .tools.content import valid_image
from .turn import Turn

DENIED = "The user did not grant permission to run '{}'. Do not retry it unless the user asks you to."
UNANSWERED = "Nobody answered the request to run '{}' in time, which counts as a refusal. Do not retry it unasked."
GONE = "Not executed: the desktop is gone."
DIED = "Interrupted: the desktop died while this was running."
TIMED_OUT = "Interrupted: it is not over yet when the turn's time limit is reached."
UNKNOWN = "There is no tool of this name here."
NOT_RUN = {"max_tokens": CUT_OFF, "model_context_window_exceeded": CUT_OFF}


class Batch:
    """``results`` grows to one ``tool_result`` per call, in order; :meth:`run` raises what halted it, at its end."""

    def __init__(self, turn: Turn, gate: Gate, desktop: Callable[[], Desktop], reply: Reply) -> None:
        self.results: list[dict[str, Any]] = []
        self.failed = False
        self._turn = turn
        self._gate = gate
        self._desktop = desktop
        self._reply = reply
        self._on_screen = [index for index, call in enumerate(reply.calls) if self._is_computer(call)]
        self._unseen: dict[str, Any] | None = None
        """The latest good result of an action whose effect no picture shows yet."""

    async def run(self) -> AsyncGenerator[Event, None]:
        """Carry the calls out. A reply that did not end in ``tool_use`` runs nothing; its calls are answered too."""
        if self._reply.stop_reason != "tool_use":
            for call in self._reply.calls:
                yield self._refuse(call, failed(NOT_RUN.get(self._reply.stop_reason, ENDED_EARLY)))
            return
        halted: Exception | None = None
        for index, call in enumerate(self._reply.calls):
            if halted is not None:
                yield self._refuse(call, failed(_words(halted)[1]))
            elif self.failed and self._is_computer(call):
                yield self._refuse(call, failed(HALTED))
            else:
                try:
                    async for event in self._one(call, last_look=index == max(self._on_screen, default=-1)):
                        yield event
                except (TurnHalted, DesktopLost) as reason:
                    halted = reason
                    if len(self.results) <= index:
                        yield self._refuse(call, failed(_words(reason)[1]))
        if halted is not None:
            raise halted

    async def _one(self, call: Call, *, last_look: bool) -> AsyncIterator[Event]:
        tool = self._turn.tool_for(call)
        if tool is None:
            yield self._refuse(call, failed(UNKNOWN))
            return
        self._turn.limits.before_step()
        async for event in self._passage():
            yield event
        member = tool.member(call)
        if self._gate.needs_approval(call.id, member, call.arguments):
            verdict = "stopped"
            request = self._gate.request(call.id, member, call.arguments)
            yield StatusChanged("waiting_approval", f"Waiting for approval: {request.shown}")
            yield request
            try:
                verdict, by = await self._gate.verdict()
            except (TurnHalted, DesktopLost):
                yield ApprovalDecided(call.id, "stopped")
                raise
            yield ApprovalDecided(call.id, verdict, by)
            yield StatusChanged("acting", "Acting on the desktop.")
            if verdict != "approved":
                words = UNANSWERED if verdict == "timeout" else DENIED
                yield await self._finish(call, member, failed(words.format(member)), self._turn.count(call, member))
                return
            async for event in self._passage():  # somebody may have taken the mouse since it was asked for
                yield event
        self._gate.admit(call.id)
        step = self._turn.count(call, member)
        yield ToolStarted(call.id, member, call.toolset, call.arguments, step)
        try:
            outcome = await self._carry_out(tool, call, last_look=last_look)
        except (TurnHalted, DesktopLost) as reason:
            yield self._note(call, member, failed(_words(reason)[0]), step)
            raise
        yield await self._finish(call, member, outcome, step)

    async def _passage(self) -> AsyncIterator[Event]:
        """Hold here while a person has paused the agent."""
        self._gate.check()
        if self._gate.paused:
            yield StatusChanged("paused", "Paused before the next action.")
            await self._gate.passage()
            yield StatusChanged("acting", "Acting on the desktop.")
        await self._gate.settle()

    async def _carry_out(self, tool: Tool, call: Call, *, last_look: bool) -> Outcome:
        """The call's outcome, with a picture if it is the batch's last action and nothing else shows its effect."""
        try:
            async with asyncio.timeout(tool.time_limit(call)):
                outcome = await self._gate.race(tool.run(call))
                if outcome.picture is not None:
                    outcome.picture = await asyncio.to_thread(valid_image, outcome.picture)
        except TimeoutError:
            return failed(f"{tool.member(call)} took too long and was given up.")
        if last_look and not outcome.is_error and outcome.changed and outcome.picture is None:
            started = time.perf_counter()
            outcome.picture = await self._look()
            if outcome.picture is not None:
                took = (time.perf_counter() - started) * 1000
                timing = outcome.timing
                outcome.timing = replace(timing, encode=outcome.picture.encode_ms, total=timing.total + took)
        return outcome

    async def _finish(self, call: Call, member: str, outcome: Outcome, step: int) -> ToolFinished:
        """Note a result; after a failed action the model gets to see how far the ones before it came."""
        seen: Screenshot | None = None
        if self._is_computer(call):
            if outcome.is_error and not self.failed and self._unseen is not None:
                seen = await self._look()
                if seen is not None:
                    self._unseen["content"].append(image_block(seen))
            self.failed |= outcome.is_error
        event = self._note(call, member, outcome, step, seen)
        if self._is_computer(call):
            if outcome.picture is not None or outcome.is_error:
                self._unseen = None
            elif outcome.changed:
                self._unseen = self.results[-1]
        return event

    def _note(
        self, call: Call, member: str, outcome: Outcome, step: int, seen: Screenshot | None = None
    ) -> ToolFinished:
        self.results.append(result_block(call, outcome))
        picture = outcome.picture or seen
        return ToolFinished(
            tool_use_id=call.id,
            tool=member,
            toolset=call.toolset,
            arguments=call.arguments,
            step=step,
            is_error=outcome.is_error,
            text=outcome.text,
            timing=outcome.timing,
            image=picture.data if picture else None,
            media_type=picture.media_type if picture else "image/png",
            width=picture.width if picture else 0,
            height=picture.height if picture else 0,
        )

    def _refuse(self, call: Call, outcome: Outcome) -> ToolFinished:
        """Answer a call that does not run."""
        tool = self._turn.tool_for(call)
        member = tool.member(call) if tool else call.name
        return self._note(call, member, outcome, self._turn.count(call, member))

    async def _look(self) -> Screenshot | None:
        try:
            async with asyncio.timeout(30):
                image = await self._gate.race(self._desktop().screenshot())
                return await asyncio.to_thread(valid_image, image)
        except (ActionError, TimeoutError):
            return None  # a picture would have been welcome; the model can still ask for one

    def _is_computer(self, call: Call) -> bool:
        return call.toolset == "computer" or (call.toolset is None and call.name == "computer")


def _words(reason: Exception) -> tuple[str, str]:
    """What the model reads of the call that was running, and of those that did not get to run."""
    if isinstance(reason, Stopped):
        return INTERRUPTED, STOPPED
    if isinstance(reason, LimitReached):
        return TIMED_OUT, LIMIT
    return DIED, GONE
