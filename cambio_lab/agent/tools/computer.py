"""The computer toolset ``computer_toolset_20260801``: the SDK parses and renders, the table of actions acts.

The SDK's class refuses malformed input in words the model understands and renders the acknowledgements the service
expects. Its ``execute`` is the one choke point; ours looks the member up in :data:`~.actions.ACTIONS`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from ...desktop.base import Desktop
from ...errors import ActionError, DesktopError, DesktopLost
from ...events import Timing
from .. import models
from ..client import ToolsetParts
from . import actions
from .call import COMPUTER, Call, Outcome, failed, text_argument

log = logging.getLogger(__name__)
NO_ARGUMENTS = "Not executed: this call came without any arguments. Send it again, with its coordinate."
WITHOUT_ZOOM = frozenset(actions.ACTIONS) - {"zoom"}
OFFERED = {models.TOOL_2025_11: frozenset(actions.ACTIONS), models.TOOL_2025_01: WITHOUT_ZOOM}
MALFORMED = "Malformed call: the computer's members are called by their own names with toolset_name computer."


class ComputerTool:
    """Carries out member calls on one desktop. ``admitted`` is asked again right before a call acts."""

    def __init__(self, desktop: Desktop, admitted: Callable[[str], bool], parts: ToolsetParts) -> None:
        self._desktop = desktop
        self._parts = parts
        self._toolset = _toolset(self, admitted, parts)
        self._done: actions.Done | None = None
        self._lost: DesktopLost | None = None

    def definitions(self) -> list[dict[str, Any]]:
        return [dict(self._toolset.to_dict())]

    def serves(self, call: Call) -> bool:
        return call.toolset == COMPUTER or (call.toolset is None and call.name == COMPUTER)

    def member(self, call: Call) -> str:
        return call.name

    def time_limit(self, call: Call) -> float:
        return actions.time_limit(call.name, call.arguments)

    async def run(self, call: Call) -> Outcome:
        """Run one member call. Only :class:`DesktopLost` and cancellation come out as exceptions."""
        if call.toolset is None:
            return failed(MALFORMED)
        if not call.arrived and call.name in actions.ACTIONS and actions.ACTIONS[call.name].aims:
            return failed(NO_ARGUMENTS)
        self._done = self._lost = None
        started = time.perf_counter()
        result = await self._toolset.tool_result(call.block or self._parts.tool_use(call))
        if self._lost is not None:
            raise self._lost
        total = (time.perf_counter() - started) * 1000
        content = result.get("content") or []
        lines = [content] if isinstance(content, str) else [b["text"] for b in content if b["type"] == "text"]
        outcome = _outcome(call.name, self._done or actions.Done(), total, "\n".join(lines))
        outcome.lines, outcome.is_error = lines, bool(result.get("is_error"))
        return outcome

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        """What the SDK's class calls once it has parsed the input; returns one of its result objects or ``None``."""
        done = await carry_out(self._desktop, name, arguments, self._parts.error, self._note_loss)
        self._done = done
        if done.image is not None:
            # The SDK only needs to see that there is one: the block is made from the screenshot itself, once.
            return self._parts.screenshot(data="", media_type=done.image.media_type)
        if done.point is not None:
            return self._parts.position(x=done.point.x, y=done.point.y)
        return None

    def _note_loss(self, error: DesktopLost) -> None:
        self._lost = error


async def carry_out(
    desktop: Desktop,
    name: str,
    arguments: dict[str, Any],
    refusal: Callable[[str], Exception],
    lost: Callable[[DesktopLost], None],
) -> actions.Done:
    """Run an action; whatever goes wrong becomes ``refusal(fixed words)``: exception texts never reach the model."""
    try:
        return await actions.ACTIONS[name].run(desktop, arguments)
    except ActionError as error:
        raise refusal(error.message) from error
    except DesktopLost as error:
        lost(error)
        raise refusal("The desktop is gone.") from error
    except TimeoutError as error:
        raise refusal(f"{name} took too long and was cancelled.") from error
    except DesktopError as error:
        raise refusal(f"The desktop could not do {name}.") from error
    except Exception as error:
        log.exception("%s failed on the desktop", name)
        raise refusal(f"{name} failed inside the desktop.") from error


def _toolset(tool: ComputerTool, admitted: Callable[[str], bool], parts: ToolsetParts) -> Any:
    """The SDK's abstract toolset with our ``execute``: a class of its own because the SDK is loaded on first use."""

    class Toolset(parts.base):  # type: ignore[misc, name-defined]
        async def execute(self, context: Any, name: str, input: Any) -> Any:
            return await tool.perform(name, input.to_dict())

    def confirm(context: Any) -> bool:
        return context.tool_use is not None and admitted(context.tool_use.id)

    return Toolset(confirm=confirm)


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
        self._size = desktop.size  # declared once: the entry must not change within a session

    def definitions(self) -> list[dict[str, Any]]:
        entry: dict[str, Any] = {
            "type": self._version,
            "name": COMPUTER,
            "display_width_px": self._size.width,
            "display_height_px": self._size.height,
        }
        if self._version == models.TOOL_2025_11:
            entry["enable_zoom"] = True
        return [entry]

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
            done = await carry_out(self._desktop, name, call.arguments, _Refused, lost.append)
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
