"""The computer toolset ``computer_toolset_20260801``: the SDK parses and renders, the table of actions acts.

The SDK's class refuses malformed input in words the model understands and renders the acknowledgements the service
expects. Its ``execute`` is the one choke point; ours looks the member up in :data:`~.actions.ACTIONS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ...desktop.base import Desktop
from ...errors import DesktopLost
from ...events import Timing
from .. import models
from ..client import ToolsetParts
from . import COMPUTER, Call, Outcome, actions, failed, refusing, text_argument

NO_ARGUMENTS = "Not executed: this call came without any arguments. Send it again, with its coordinate."
WITHOUT_ZOOM = frozenset(actions.ACTIONS) - {"zoom"}
OFFERED = {models.TOOL_2025_11: frozenset(actions.ACTIONS), models.TOOL_2025_01: WITHOUT_ZOOM}
MALFORMED = "Malformed call: the computer's members are called by their own names with toolset_name computer."


class ToolsetTool:
    """A toolset of the SDK, which parses the input and renders the results; the subclass's ``perform`` acts."""

    def __init__(self, toolset: Any, tool_use: Callable[[Call], Any]) -> None:
        self.definitions = [dict(toolset.to_dict())]
        self._toolset = toolset
        self._tool_use = tool_use
        self._lost: DesktopLost | None = None

    def member(self, call: Call) -> str:
        return call.name

    async def result(self, call: Call) -> tuple[list[dict[str, Any]], bool, float]:
        """Return a call's blocks, whether they say that it failed, and its milliseconds. Raises what lost the desktop.

        Only :class:`DesktopLost` and cancellation come out as exceptions.
        """
        self._lost = None
        started = time.perf_counter()
        result = await self._toolset.tool_result(self._tool_use(call))
        if self._lost is not None:
            raise self._lost
        content = result.get("content") or []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        return blocks, bool(result.get("is_error")), (time.perf_counter() - started) * 1000

    def note_loss(self, error: DesktopLost) -> None:
        self._lost = error


def confirm(admitted: Callable[[str], bool]) -> Callable[[Any], bool]:
    """Return what the SDK's class asks right before a call acts: whether the loop admitted it."""
    return lambda context: context.tool_use is not None and admitted(context.tool_use.id)


class ComputerTool(ToolsetTool):
    """Carries out member calls on one desktop. ``admitted`` is asked again right before a call acts."""

    def __init__(self, desktop: Desktop, admitted: Callable[[str], bool], parts: ToolsetParts) -> None:
        super().__init__(_toolset(self, admitted, parts), parts.tool_use)
        self._desktop = desktop
        self._parts = parts
        self._done = actions.Done()

    def serves(self, call: Call) -> bool:
        return call.toolset == COMPUTER or (call.toolset is None and call.name == COMPUTER)

    def time_limit(self, call: Call) -> float:
        return actions.time_limit(call.name, call.arguments)

    async def run(self, call: Call) -> Outcome:
        if call.toolset is None:
            return failed(MALFORMED)
        if not call.arrived and call.name in actions.ACTIONS and actions.ACTIONS[call.name].aims:
            return failed(NO_ARGUMENTS)
        self._done = actions.Done()
        blocks, is_error, total = await self.result(call)
        lines = [block["text"] for block in blocks if block["type"] == "text"]
        outcome = _outcome(call.name, self._done, total, "\n".join(lines))
        outcome.lines, outcome.is_error = lines, is_error
        return outcome

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        """What the SDK's class calls once it has parsed the input; returns one of its result objects or ``None``."""
        with refusing(name, "desktop", self._parts.error, self.note_loss):
            done = self._done = await actions.ACTIONS[name].run(self._desktop, arguments)
        if done.image is not None:
            # The SDK only needs to see that there is one: the block is made from the screenshot itself, once.
            return self._parts.computer.BetaScreenshotResult(data="", media_type=done.image.media_type)
        if done.point is not None:
            return self._parts.computer.BetaComputerCursorPositionResult(x=done.point.x, y=done.point.y)
        return None


def _toolset(tool: ComputerTool, admitted: Callable[[str], bool], parts: ToolsetParts) -> Any:
    """The SDK's abstract toolset with our ``execute``: a class of its own because the SDK is loaded on first use."""

    class Toolset(parts.computer.BetaAsyncAbstractComputerToolset20260801):  # type: ignore[misc, name-defined]
        async def execute(self, context: Any, name: str, input: Any) -> Any:
            return await tool.perform(name, input.to_dict())

    return Toolset(confirm=confirm(admitted))


class _Refused(Exception):
    pass


class LegacyComputerTool:
    """The older single tool ``computer``, for models without the toolset; ``version`` is one of its two dated types.

    The action's name is in ``input.action``. The SDK parses nothing here; the table of actions checks every value.
    """

    def __init__(self, desktop: Desktop, admitted: Callable[[str], bool], version: str) -> None:
        self._desktop = desktop
        self._admitted = admitted
        self._version = version
        entry: dict[str, Any] = {"type": version, "name": COMPUTER}
        entry |= {"display_width_px": desktop.size.width, "display_height_px": desktop.size.height}
        if version == models.TOOL_2025_11:
            entry["enable_zoom"] = True
        self.definitions = [entry]

    def serves(self, call: Call) -> bool:
        return call.toolset is None and call.name == COMPUTER

    def member(self, call: Call) -> str:
        return text_argument(call.arguments, "action") or COMPUTER

    def time_limit(self, call: Call) -> float:
        return actions.time_limit(self.member(call), call.arguments)

    async def run(self, call: Call) -> Outcome:
        """Run one action. Only :class:`DesktopLost` and cancellation come out as exceptions."""
        name = text_argument(call.arguments, "action")
        if name not in OFFERED[self._version]:
            return failed("action must be one of: " + ", ".join(sorted(OFFERED[self._version])) + ".")
        if not self._admitted(call.id):
            return failed(f"Permission to run {name} could not be obtained.")
        lost: list[DesktopLost] = []
        started = time.perf_counter()
        try:
            with refusing(name, "desktop", _Refused, lost.append):
                done = await actions.ACTIONS[name].run(self._desktop, call.arguments)
        except _Refused as refusal:
            if lost:
                raise lost[0] from refusal
            return failed(str(refusal))
        text = "" if done.image else f"Done: {name}."
        if done.point is not None:
            text = f"X={done.point.x},Y={done.point.y}"
        return _outcome(name, done, (time.perf_counter() - started) * 1000, text)


def _outcome(name: str, done: actions.Done, total: float, text: str) -> Outcome:
    settled, image = done.settled, done.image
    return Outcome(
        text=text,
        image=image,
        timing=Timing(settled.action_ms, settled.waited_ms, image.encode_ms if image else 0.0, total),
        changed=name in actions.ACTIONS and actions.ACTIONS[name].changes,
    )
