"""The 17 things a computer toolset can do, as one table over the Desktop protocol.

Both the toolset and the older single tool dispatch through :data:`ACTIONS`. Arguments come from a model: every range
is checked here and a wrong value is refused with :class:`~cambio_lab.errors.ActionError`, never clamped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...desktop.base import Button, Desktop, Point, Region, Screenshot, Settled, Size
from ...errors import ActionError

LONGEST = 300.0  # seconds, of hold_key and wait
MOST_REPEATS = 100
MOST_WHEEL_CLICKS = 50
LONGEST_TEXT = 100_000  # characters of one `type`
Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """What an action returned: an image, a position, or only how long the screen took to settle."""

    image: Screenshot | None = None
    point: Point | None = None
    settled: Settled = Settled()


@dataclass(frozen=True, slots=True)
class Action:
    """``run`` carries it out; ``changes`` says that the screen may look different afterwards.

    ``aims`` says that it acts somewhere else when an argument that may be left out is left out.
    """

    run: Callable[[Desktop, Arguments], Awaitable[Done]]
    changes: bool = True
    aims: bool = False


async def screenshot(desktop: Desktop, arguments: Arguments) -> Done:
    return Done(image=await desktop.screenshot())


async def zoom(desktop: Desktop, arguments: Arguments) -> Done:
    return Done(image=await desktop.zoom(_region(arguments, desktop.size)))


async def cursor_position(desktop: Desktop, arguments: Arguments) -> Done:
    return Done(point=await desktop.cursor_position())


async def mouse_move(desktop: Desktop, arguments: Arguments) -> Done:
    return Done(settled=await desktop.move(_point(arguments, "coordinate", desktop.size)))


def _click(button: Button, count: int = 1) -> Action:
    async def click(desktop: Desktop, arguments: Arguments) -> Done:
        point = _optional_point(arguments, "coordinate", desktop.size)
        return Done(settled=await desktop.click(button, point, count=count, modifiers=_modifiers(arguments)))

    return Action(click, aims=True)


async def left_click_drag(desktop: Desktop, arguments: Arguments) -> Done:
    start = _point(arguments, "start_coordinate", desktop.size)
    end = _point(arguments, "coordinate", desktop.size)
    return Done(settled=await desktop.drag(start, end, modifiers=_modifiers(arguments)))


async def left_mouse_down(desktop: Desktop, arguments: Arguments) -> Done:
    return Done(settled=await desktop.button_down("left"))


async def left_mouse_up(desktop: Desktop, arguments: Arguments) -> Done:
    return Done(settled=await desktop.button_up("left"))


async def scroll(desktop: Desktop, arguments: Arguments) -> Done:
    direction = _direction(arguments)
    amount = _integer(arguments, "scroll_amount", 1, MOST_WHEEL_CLICKS)
    point = _optional_point(arguments, "coordinate", desktop.size)
    return Done(settled=await desktop.scroll(direction, amount, point, modifiers=_modifiers(arguments)))


async def type_text(desktop: Desktop, arguments: Arguments) -> Done:
    text = _text(arguments)
    if len(text) > LONGEST_TEXT:
        raise ActionError(f"text has {len(text)} characters; type at most {LONGEST_TEXT} at once.")
    return Done(settled=await desktop.type_text(text))


async def key(desktop: Desktop, arguments: Arguments) -> Done:
    repeat = 1 if arguments.get("repeat") is None else _integer(arguments, "repeat", 1, MOST_REPEATS)
    return Done(settled=await desktop.key(_text(arguments), repeat))


async def hold_key(desktop: Desktop, arguments: Arguments) -> Done:
    return Done(settled=await desktop.hold_key(_text(arguments), _seconds(arguments)))


async def wait(desktop: Desktop, arguments: Arguments) -> Done:
    seconds = _seconds(arguments)
    await desktop.sleep(seconds)
    return Done(settled=Settled(action_ms=seconds * 1000))


ACTIONS: dict[str, Action] = {
    "screenshot": Action(screenshot, changes=False),
    "zoom": Action(zoom, changes=False),
    "cursor_position": Action(cursor_position, changes=False),
    "mouse_move": Action(mouse_move),
    "left_click": _click("left"),
    "right_click": _click("right"),
    "middle_click": _click("middle"),
    "double_click": _click("left", 2),
    "triple_click": _click("left", 3),
    "left_click_drag": Action(left_click_drag),
    "left_mouse_down": Action(left_mouse_down),
    "left_mouse_up": Action(left_mouse_up),
    "scroll": Action(scroll),
    "type": Action(type_text),
    "key": Action(key),
    "hold_key": Action(hold_key),
    "wait": Action(wait),
}


def time_limit(name: str, arguments: Arguments) -> float:
    """Return seconds a call may take: what it asked for, and half a minute for everything else."""
    duration = arguments.get("duration")
    numeric = isinstance(duration, int | float) and 0 <= duration <= LONGEST  # compared before it becomes a float
    return (float(duration) if numeric and name in ("wait", "hold_key") else 0.0) + 30.0  # type: ignore[arg-type]


def _integer(arguments: Arguments, key: str, low: int, high: int) -> int:
    value = arguments.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ActionError(f"{key} must be a whole number from {low} to {high}.")
    if not low <= value <= high:
        raise ActionError(f"{key} must be from {low} to {high}, not {value}.")
    return value


def _seconds(arguments: Arguments) -> float:
    value = arguments.get("duration")
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ActionError(f"duration must be a number of seconds from 0 to {LONGEST:g}.")
    if not 0 <= value <= LONGEST:
        raise ActionError(f"duration must be from 0 to {LONGEST:g} seconds.")
    return float(value)


def _text(arguments: Arguments) -> str:
    value = arguments.get("text")
    if not isinstance(value, str) or not value:
        raise ActionError("text must be a string that is not empty.")
    return value


def _modifiers(arguments: Arguments) -> str | None:
    value = arguments.get("text")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ActionError("text must be a string such as ctrl+shift.")
    return value


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


def _point(arguments: Arguments, key: str, size: Size) -> Point:
    x, y = _integers(arguments, key, 2)
    if not (0 <= x < size.width and 0 <= y < size.height):
        raise ActionError(f"{key} [{x}, {y}] is outside the {size} screen.")
    return Point(x, y)


def _optional_point(arguments: Arguments, key: str, size: Size) -> Point | None:
    return None if arguments.get(key) is None else _point(arguments, key, size)


def _region(arguments: Arguments, size: Size) -> Region:
    x0, y0, x1, y1 = _integers(arguments, "region", 4)
    if not (0 <= x0 < x1 <= size.width and 0 <= y0 < y1 <= size.height):
        raise ActionError(f"region [{x0}, {y0}, {x1}, {y1}] must lie on the {size} screen with x0 < x1 and y0 < y1.")
    return Region(x0, y0, x1, y1)
