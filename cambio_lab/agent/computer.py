"""The computer toolset ``computer_toolset_20260801``: the SDK parses and renders, the table of 17 actions acts.

The SDK's class refuses malformed input in words the model understands and renders what the service expects. Its
``execute`` is the one choke point; ours looks the member up in :data:`ACTIONS`, as the older single tool does.
Arguments come from a model: a wrong value is refused with :class:`~cambio_lab.errors.ActionError`, never clamped.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..desktop.base import Button, Desktop, Point, Region, Screenshot, Settled, Size
from ..errors import ActionError, DesktopLost
from ..events import Timing
from . import models
from .client import ToolsetParts
from .tools import COMPUTER, Call, Outcome, failed, refusing, text_argument

NO_ARGUMENTS = "Not executed: this call came without any arguments. Send it again, with its coordinate."
MALFORMED = "Malformed call: the computer's members are called by their own names with toolset_name computer."
LONGEST = 300.0  # seconds, of hold_key and wait
MOST_REPEATS = 100
MOST_WHEEL_CLICKS = 50
LONGEST_TEXT = 100_000  # characters of one `type`
Arguments = Mapping[str, Any]
Done = Screenshot | Point | Settled
"""What an action returned: an image, a position, or only how long the screen took to settle."""


@dataclass(frozen=True, slots=True)
class Action:
    """``changes``: the screen may look different afterwards; ``aims``: it acts elsewhere when its point is left out."""

    run: Callable[[Desktop, Arguments], Awaitable[Done]]
    changes: bool = True
    aims: bool = False


def _click(button: Button, count: int = 1) -> Action:
    return Action(
        lambda desktop, given: desktop.click(
            button, _optional_point(given, desktop.size), count=count, modifiers=_modifiers(given)
        ),
        aims=True,
    )


async def _wait(desktop: Desktop, given: Arguments) -> Settled:
    seconds = _seconds(given)
    await desktop.sleep(seconds)
    return Settled(action_ms=seconds * 1000)


ACTIONS: dict[str, Action] = {
    "screenshot": Action(lambda desktop, given: desktop.screenshot(), changes=False),
    "zoom": Action(lambda desktop, given: desktop.zoom(_region(given, desktop.size)), changes=False),
    "cursor_position": Action(lambda desktop, given: desktop.cursor_position(), changes=False),
    "mouse_move": Action(lambda desktop, given: desktop.move(_point(given, desktop.size))),
    "left_click": _click("left"),
    "right_click": _click("right"),
    "middle_click": _click("middle"),
    "double_click": _click("left", 2),
    "triple_click": _click("left", 3),
    "left_click_drag": Action(
        lambda desktop, given: desktop.drag(
            _point(given, desktop.size, "start_coordinate"), _point(given, desktop.size), modifiers=_modifiers(given)
        )
    ),
    "left_mouse_down": Action(lambda desktop, given: desktop.button_down("left")),
    "left_mouse_up": Action(lambda desktop, given: desktop.button_up("left")),
    "scroll": Action(
        lambda desktop, given: desktop.scroll(
            _direction(given),
            _integer(given, "scroll_amount", 1, MOST_WHEEL_CLICKS),
            _optional_point(given, desktop.size),
            modifiers=_modifiers(given),
        )
    ),
    "type": Action(lambda desktop, given: desktop.type_text(_text(given))),
    "key": Action(lambda desktop, given: desktop.key(_text(given), _integer(given, "repeat", 1, MOST_REPEATS, 1))),
    "hold_key": Action(lambda desktop, given: desktop.hold_key(_text(given), _seconds(given))),
    "wait": Action(_wait),
}
OFFERED = {models.TOOL_2025_11: frozenset(ACTIONS), models.TOOL_2025_01: frozenset(ACTIONS) - {"zoom"}}


def time_limit(name: str, arguments: Arguments) -> float:
    """Return seconds a call may take: what it asked for, and half a minute for everything else."""
    duration = arguments.get("duration")
    numeric = isinstance(duration, int | float) and 0 <= duration <= LONGEST  # compared before it becomes a float
    return (float(duration) if numeric and name in ("wait", "hold_key") else 0.0) + 30.0  # type: ignore[arg-type]


def _integer(arguments: Arguments, key: str, low: int, high: int, default: int | None = None) -> int:
    value = default if arguments.get(key) is None else arguments[key]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ActionError(f"{key} must be a whole number from {low} to {high}.")
    return value


def _seconds(arguments: Arguments) -> float:
    value = arguments.get("duration")
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LONGEST:
        raise ActionError(f"duration must be a number of seconds from 0 to {LONGEST:g}.")
    return float(value)


def _text(arguments: Arguments) -> str:
    value = arguments.get("text")
    if not isinstance(value, str) or not value:
        raise ActionError("text must be a string that is not empty.")
    if len(value) > LONGEST_TEXT:
        raise ActionError(f"text has {len(value)} characters; type at most {LONGEST_TEXT} at once.")
    return value


def _modifiers(arguments: Arguments) -> str | None:
    value = arguments.get("text")
    if value is not None and not isinstance(value, str):
        raise ActionError("text must be a string such as ctrl+shift.")
    return value or None


def _direction(arguments: Arguments) -> Literal["up", "down", "left", "right"]:
    value = arguments.get("scroll_direction")
    if value not in ("up", "down", "left", "right"):
        raise ActionError("scroll_direction must be up, down, left or right.")
    return value  # type: ignore[no-any-return]


def _integers(arguments: Arguments, key: str, count: int) -> list[int]:
    value = arguments.get(key)
    if (
        not isinstance(value, list | tuple)
        or len(value) != count
        or any(isinstance(item, bool) or not isinstance(item, int) for item in value)
    ):
        shape = "[x, y]" if count == 2 else "[x0, y0, x1, y1]"
        raise ActionError(f"{key} must be {shape} in whole pixels.")
    return list(value)


def _point(arguments: Arguments, size: Size, key: str = "coordinate") -> Point:
    x, y = _integers(arguments, key, 2)
    if not (0 <= x < size.width and 0 <= y < size.height):
        raise ActionError(f"{key} [{x}, {y}] is outside the {size} screen.")
    return Point(x, y)


def _optional_point(arguments: Arguments, size: Size) -> Point | None:
    return None if arguments.get("coordinate") is None else _point(arguments, size)


def _region(arguments: Arguments, size: Size) -> Region:
    x0, y0, x1, y1 = _integers(arguments, "region", 4)
    if not (0 <= x0 < x1 <= size.width and 0 <= y0 < y1 <= size.height):
        raise ActionError(f"region [{x0}, {y0}, {x1}, {y1}] must lie on the {size} screen with x0 < x1 and y0 < y1.")
    return Region(x0, y0, x1, y1)


class ToolsetTool:
    """A toolset of the SDK, which parses the input and renders the results; the subclass's ``perform`` acts.

    ``admitted`` is asked again right before a call acts. ``abstract`` is the SDK's class, loaded on first use.
    """

    def __init__(
        self, abstract: type[Any], admitted: Callable[[str], bool], parts: ToolsetParts, **options: Any
    ) -> None:
        tool = self

        class Toolset(abstract):  # type: ignore[misc]
            async def execute(self, context: Any, name: str, input: Any) -> Any:
                return await tool.perform(name, input.to_dict())

        self._toolset = Toolset(
            confirm=lambda context: context.tool_use is not None and admitted(context.tool_use.id), **options
        )
        self.definitions = [dict(self._toolset.to_dict())]
        self._parts = parts
        self._lost: DesktopLost | None = None

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        """Act on input that the SDK's class has parsed; return one of its result objects or ``None``."""
        raise NotImplementedError

    def member(self, call: Call) -> str:
        return call.name

    async def result(self, call: Call) -> tuple[list[dict[str, Any]], bool, float]:
        """Return a call's blocks, whether they say that it failed, its milliseconds; raise what lost the desktop."""
        self._lost = None
        started = time.perf_counter()
        result = await self._toolset.tool_result(self._parts.tool_use(call))
        if self._lost is not None:
            raise self._lost
        content = result.get("content") or []
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        return blocks, bool(result.get("is_error")), (time.perf_counter() - started) * 1000

    def note_loss(self, error: DesktopLost) -> None:
        self._lost = error


class ComputerTool(ToolsetTool):
    """Carries out member calls on one desktop."""

    def __init__(self, desktop: Desktop, admitted: Callable[[str], bool], parts: ToolsetParts) -> None:
        super().__init__(parts.computer.BetaAsyncAbstractComputerToolset20260801, admitted, parts)
        self._desktop = desktop
        self._done: Done = Settled()

    def serves(self, call: Call) -> bool:
        return call.toolset == COMPUTER or (call.toolset is None and call.name == COMPUTER)

    def time_limit(self, call: Call) -> float:
        return time_limit(call.name, call.arguments)

    async def run(self, call: Call) -> Outcome:
        if call.toolset is None:
            return failed(MALFORMED)
        if not call.arrived and call.name in ACTIONS and ACTIONS[call.name].aims:
            return failed(NO_ARGUMENTS)
        self._done = Settled()
        blocks, is_error, total = await self.result(call)
        lines = [block["text"] for block in blocks if block["type"] == "text"]
        outcome = _outcome(call.name, self._done, total, "\n".join(lines))
        outcome.lines, outcome.is_error = lines, is_error
        return outcome

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        with refusing(name, "desktop", self._parts.error, self.note_loss):
            done = self._done = await ACTIONS[name].run(self._desktop, arguments)
        if isinstance(done, Screenshot):
            # The SDK only needs to see that there is one: the block is made from the screenshot itself, once.
            return self._parts.computer.BetaScreenshotResult(data="", media_type=done.media_type)
        if isinstance(done, Point):
            return self._parts.computer.BetaComputerCursorPositionResult(x=done.x, y=done.y)
        return None


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
        return time_limit(self.member(call), call.arguments)

    async def run(self, call: Call) -> Outcome:
        name = text_argument(call.arguments, "action")
        if name not in OFFERED[self._version]:
            return failed("action must be one of: " + ", ".join(sorted(OFFERED[self._version])) + ".")
        if not self._admitted(call.id):
            return failed(f"Permission to run {name} could not be obtained.")
        lost: list[DesktopLost] = []
        started = time.perf_counter()
        try:
            with refusing(name, "desktop", ActionError, lost.append):
                done = await ACTIONS[name].run(self._desktop, call.arguments)
        except ActionError as refusal:
            if lost:
                raise lost[0] from refusal
            return failed(refusal.message)
        text = "" if isinstance(done, Screenshot) else f"Done: {name}."
        if isinstance(done, Point):
            text = f"X={done.x},Y={done.y}"
        return _outcome(name, done, (time.perf_counter() - started) * 1000, text)


def _outcome(name: str, done: Done, total: float, text: str) -> Outcome:
    settled = done if isinstance(done, Settled) else Settled()
    image = done if isinstance(done, Screenshot) else None
    return Outcome(
        text=text,
        image=image,
        timing=Timing(settled.action_ms, settled.waited_ms, image.encode_ms if image else 0.0, total),
        changed=name in ACTIONS and ACTIONS[name].changes,
    )
