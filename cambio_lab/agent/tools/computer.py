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
from ..client import ToolsetParts
from . import actions
from .call import COMPUTER, Call, Outcome, failed

log = logging.getLogger(__name__)
UNTOLD = "Not executed: this call came without any arguments. Send it again, with its coordinate."
MALFORMED = "Malformed call: the computer's members are called by their own names with toolset_name computer."


class ComputerTool:
    """Carries out member calls on one desktop. ``admitted`` is asked again right before a call acts."""

    def __init__(self, desktop: Callable[[], Desktop], admitted: Callable[[str], bool], parts: ToolsetParts) -> None:
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
            return failed(UNTOLD)
        self._done = self._lost = None
        started = time.perf_counter()
        result = await self._toolset.tool_result(call.block or self._parts.tool_use(call))
        if self._lost is not None:
            raise self._lost
        total = (time.perf_counter() - started) * 1000
        content = result.get("content") or []
        lines = [content] if isinstance(content, str) else [b["text"] for b in content if b["type"] == "text"]
        done = self._done or actions.Done()
        picture = done.picture
        return Outcome(
            text="\n".join(lines),
            lines=lines,
            picture=picture,
            is_error=bool(result.get("is_error")),
            timing=Timing(
                action=done.settled.action_ms,
                settle=done.settled.waited_ms,
                encode=picture.encode_ms if picture else 0.0,
                total=total,
            ),
            changed=call.name in actions.ACTIONS and actions.ACTIONS[call.name].changes,
        )

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        """What the SDK's class calls once it has parsed the input; returns one of its result objects or ``None``."""
        done = await carry_out(self._desktop(), name, arguments, self._parts.error, self._note_loss)
        self._done = done
        if done.picture is not None:
            # the SDK only needs to see that there is one: the block is built from the picture itself, once
            return self._parts.screenshot(data="", media_type=done.picture.media_type)
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
        raise refusal(f"{name} took too long and was given up.") from error
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
