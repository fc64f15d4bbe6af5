"""The calls of one reply: carried out in order, each answered exactly once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from ..desktop.base import Desktop, Screenshot
from ..errors import ActionError, DesktopLost
from ..events import ApprovalDecided, QuestionAnswered, StatusChanged, Timing, ToolFinished, ToolStarted
from .client import ToolsetParts
from .computer import ComputerTool, LegacyComputerTool
from .extras import AskTool, BrowserTool
from .gate import Gate, LimitReached, Stopped, TurnHalted
from .models import TOOLSET, ModelInfo
from .options import AgentOptions
from .reply import Reply
from .shell import BashTool, EditorTool
from .tools import (
    BROWSER,
    COMPUTER,
    ENDED_EARLY,
    HAND_OVER,
    LIMIT,
    STOPPED,
    Call,
    Outcome,
    Tool,
    failed,
    image_block,
    image_fields,
    observe,
    result_block,
    valid_image,
)
from .turn import TurnState

HALTED = {
    COMPUTER: "Not executed: an earlier computer action in this turn failed.",
    BROWSER: "Not executed: an earlier action in this turn failed.",
}
"""The service's own words for each toolset."""
INTERRUPTED = "Interrupted: the user stopped the agent while this was running. It may have had part of its effect."
CUT_OFF = "Not executed: the reply was cut off at its token limit. Send the call again."
DENIED = "The user did not grant permission to run '{}'. Do not retry it unless the user asks you to."
UNANSWERED = (
    "The request to run '{}' was not answered in time, which counts as a refusal. Do not retry it unless the user asks "
    "you to."
)
GONE = "Not executed: the desktop is gone."
DIED = "Interrupted: the desktop died while this was running."
TIMED_OUT = "Interrupted: it had not finished when the turn's time limit was reached."
UNKNOWN = "There is no tool of this name here."
NOT_RUN = {"max_tokens": CUT_OFF, "model_context_window_exceeded": CUT_OFF}
Halt = TurnHalted | DesktopLost
Ended = Literal["ran", "skipped", "interrupted"]


def make_tools(info: ModelInfo, options: AgentOptions, desktop: Desktop, gate: Gate, parts: ToolsetParts) -> list[Tool]:
    """Return the session's tools: of computer (in the model's version), browser, shell and editor."""
    computer: Tool
    if info.tool == TOOLSET:
        computer = ComputerTool(desktop, gate.admitted, parts)
    else:
        computer = LegacyComputerTool(desktop, gate.admitted, info.tool)
    made: dict[str, Tool] = {"computer": computer}
    if browses(info, options, desktop):
        members = frozenset(options.tools)
        hosts = options.network["allow"] if isinstance(options.network, Mapping) else None
        desktop.limit_browser(hosts, members)
        made["browser"] = BrowserTool(desktop, gate.admitted, parts, members)
    made["bash"] = BashTool(desktop, timeout=options.shell_timeout, limit=options.shell_output)
    made["editor"] = EditorTool(desktop, limit=options.shell_output)
    tools = [tool for name, tool in made.items() if options.offers(name)]
    return [*tools, AskTool(options.ask_timeout)] if options.ask_user else tools


def browses(info: ModelInfo, options: AgentOptions, desktop: Desktop) -> bool:
    """Return whether a session has the browser toolset."""
    return options.offers("browser") and info.browses and desktop.has_browser


class Calls:
    """``results`` grows to one ``tool_result`` per call, in order; ``failed`` names the toolsets with a failed call."""

    def __init__(self, turn: TurnState, gate: Gate, desktop: Desktop, reply: Reply) -> None:
        self.results: list[dict[str, Any]] = []
        self.failed: set[str] = set()
        self._turn = turn
        self._gate = gate
        self._desktop = desktop
        self._reply = reply
        on_screen = [call for call in reply.calls if _is_computer(call)]
        self._last_on_screen = on_screen[-1] if on_screen else None
        self._unseen: dict[str, Any] | None = None
        """The latest good result of an action whose effect no screenshot shows yet."""

    async def run(self) -> Halt | None:
        """Carry the calls out; return what halted them. Only a reply that ended in ``tool_use`` runs anything."""
        if self._reply.stop_reason != "tool_use":
            for call in self._reply.calls:
                await self._skip(call, NOT_RUN.get(self._reply.stop_reason, ENDED_EARLY))
            return None
        halted: Halt | None = None
        for index, call in enumerate(self._reply.calls):
            if halted is not None:
                await self._skip(call, _words(halted)[1])
            elif (family := _family(call)) in self.failed:
                await self._skip(call, HALTED[family])
            else:
                try:
                    await self._one(call)
                except (TurnHalted, DesktopLost) as reason:
                    halted = reason
                    if len(self.results) <= index:
                        await self._skip(call, _words(reason)[1])
        return halted

    async def _one(self, call: Call) -> None:
        tool = self._turn.tool_for(call)
        if tool is None:
            await self._note(call, call.name, failed(UNKNOWN), self._turn.count(call.name))
            return
        self._turn.limits.before_step()
        await self._passage()
        member = tool.member(call)
        if self._gate.needs_approval(call.id, member, call.arguments):
            verdict = await self._ask(call, member)
            if verdict != "approved":
                words = UNANSWERED if verdict == "timeout" else DENIED
                await self._finish(call, member, failed(words.format(member)), self._turn.count(member))
                return
            await self._passage()  # a person may have paused the agent since it was asked for
        self._gate.admit(call.id)
        step = self._turn.count(member)
        await self._turn.emit(ToolStarted(call.id, member, call.toolset, call.arguments, step))
        began = time.perf_counter()
        try:
            carried = self._question(tool, call) if isinstance(tool, AskTool) else self._carry_out(tool, call)
            outcome = await carried
        except (TurnHalted, DesktopLost) as reason:
            outcome = failed(_words(reason)[0])
            outcome.timing = Timing(total=(time.perf_counter() - began) * 1000)
            await self._note(call, member, outcome, step, ended="interrupted")
            raise
        await self._finish(call, member, outcome, step)

    async def _passage(self) -> None:
        """Wait while a person has paused the agent, and for cancelled calls that still clean up."""
        self._gate.check()
        if self._gate.paused:
            await self._turn.emit(StatusChanged("paused", "Paused before the next action."))
            await self._gate.passage()
            await self._turn.emit(StatusChanged("acting", "Acting on the desktop."))
        await self._gate.settle()

    async def _ask(self, call: Call, member: str) -> str:
        """Return a person's verdict on the call."""
        tool = self._turn.tool_for(call)
        address = tool.address(call) if isinstance(tool, BrowserTool) else ""
        request = self._gate.request(call.id, member, call.arguments, address)
        await self._turn.emit(StatusChanged("waiting_approval", f"Waiting for approval: {request.shown}"))
        await self._turn.emit(request)
        try:
            verdict, by = await self._gate.verdict()
        except (TurnHalted, DesktopLost):
            await self._turn.emit(ApprovalDecided(call.id, "stopped"))
            raise
        await self._turn.emit(ApprovalDecided(call.id, verdict, by))
        await self._turn.emit(StatusChanged("acting", "Acting on the desktop."))
        return verdict

    async def _question(self, tool: AskTool, call: Call) -> Outcome:
        """Ask a person and wait; after a hand-over the model sees the screen."""
        began = time.perf_counter()
        try:
            question = tool.question(call)
        except ActionError as error:
            return failed(error.message)
        hands_over = question.tool == HAND_OVER
        if hands_over:  # a button that the agent holds would keep the person's mouse from the desktop
            await self._gate.race(self._desktop.release_all())
        self._gate.ask(question)
        words = f"{'Take over, please' if hands_over else 'A question'}: {question.question}"
        await self._turn.emit(StatusChanged("waiting", words))
        await self._turn.emit(question)
        try:
            answer = await self._gate.reply()
        except (TurnHalted, DesktopLost):
            await self._turn.emit(QuestionAnswered(call.id, "stopped"))
            raise
        await self._turn.emit(answer)
        await self._turn.emit(StatusChanged("acting", "Acting on the desktop."))
        outcome = Outcome(text=tool.words(question, answer))
        if hands_over:
            await self._passage()
            outcome.image = await self._look()
        total = (time.perf_counter() - began) * 1000
        outcome.timing = Timing(action=total, total=total)
        return outcome

    async def _carry_out(self, tool: Tool, call: Call) -> Outcome:
        """Return the call's outcome, with a screenshot if nothing else shows the effect of the reply's last action."""
        try:
            async with asyncio.timeout(tool.time_limit(call)):
                outcome = await self._gate.race(tool.run(call))
                if outcome.image is not None:
                    outcome.image = await asyncio.to_thread(valid_image, outcome.image)
        except TimeoutError:
            return failed(f"{tool.member(call)} took too long and was cancelled.")
        if call is self._last_on_screen and not outcome.is_error and outcome.changed and outcome.image is None:
            started = time.perf_counter()
            outcome.image = await self._look()
            if outcome.image is not None:
                took = (time.perf_counter() - started) * 1000
                timing = outcome.timing
                outcome.timing = replace(timing, encode=outcome.image.encode_ms, total=timing.total + took)
        return outcome

    async def _finish(self, call: Call, member: str, outcome: Outcome, step: int) -> None:
        """Note a result; after a failed action the model sees how far the ones before it came."""
        seen: Screenshot | None = None
        if _is_computer(call) and outcome.is_error and COMPUTER not in self.failed and self._unseen is not None:
            seen = await self._look()
            if seen is not None:
                self._unseen["content"].append(image_block(seen))
        if outcome.is_error and (family := _family(call)):
            self.failed.add(family)
        await self._note(call, member, outcome, step, seen)
        if wanted := self._turn.options.observe:
            await self._turn.emit(await self._gate.race(observe(wanted, self._desktop, call, outcome, step)))
        if _is_computer(call):
            if outcome.image is not None or outcome.is_error:
                self._unseen = None
            elif outcome.changed:
                self._unseen = self.results[-1]

    async def _note(
        self, call: Call, member: str, outcome: Outcome, step: int, seen: Screenshot | None = None, ended: Ended = "ran"
    ) -> None:
        self.results.append(result_block(call, outcome))
        await self._turn.emit(
            ToolFinished(
                tool_use_id=call.id,
                tool=member,
                toolset=call.toolset,
                arguments=call.arguments,
                step=step,
                is_error=outcome.is_error,
                text=outcome.text,
                timing=outcome.timing,
                box=outcome.box,
                ended=ended,
                **image_fields(outcome.image or seen),
            )
        )

    async def _skip(self, call: Call, words: str) -> None:
        """Answer a call that does not run."""
        tool = self._turn.tool_for(call)
        member = tool.member(call) if tool else call.name
        await self._note(call, member, failed(words), self._turn.count(member), ended="skipped")

    async def _look(self) -> Screenshot | None:
        """Return a screenshot if there can be one; the model can still ask for it."""
        try:
            async with asyncio.timeout(30):
                image = await self._gate.race(self._desktop.screenshot())
                return await asyncio.to_thread(valid_image, image)
        except (ActionError, TimeoutError):
            return None


def _family(call: Call) -> str:
    """Return the toolset whose later calls a failure halts; empty for other tools."""
    if call.toolset in (COMPUTER, BROWSER):
        return call.toolset
    return COMPUTER if call.toolset is None and call.name == COMPUTER else ""


def _is_computer(call: Call) -> bool:
    return _family(call) == COMPUTER


def _words(reason: Exception) -> tuple[str, str]:
    """Return what the model reads of the call that was running, and of those that did not get to run."""
    if isinstance(reason, Stopped):
        return INTERRUPTED, STOPPED
    if isinstance(reason, LimitReached):
        return TIMED_OUT, LIMIT
    return DIED, GONE
