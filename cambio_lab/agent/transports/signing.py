"""The demo model signs the guest book: a form in the desktop's browser, read, filled in, drawn on and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from .tour import (
    HELP,
    OWN_TOOLS,
    SAYS,
    Block,
    Message,
    Reply,
    calls_of,
    current_turn,
    failure,
    member,
    results,
    say,
    user_words,
)

PROGRAM = Path(__file__).with_name("guest_book.py")
STAR = ((0.5, 0.1), (0.75, 0.9), (0.1, 0.4), (0.9, 0.4), (0.25, 0.9), (0.5, 0.1))
"""Corners of the drawing, as fractions of the canvas."""
NAME = "The demo model"


def next_reply(messages: Sequence[Message], tools: frozenset[str]) -> Reply | None:
    """Return the next step; ``None`` unless the message asks for it, tools and browser are there and all went well."""
    turn = current_turn(messages)
    if "guest book" not in user_words(turn[0]).lower() or not tools >= OWN_TOOLS or failure(turn) is not None:
        return None
    done = [block["name"] for block in calls_of(turn)]
    look = member("screenshot")
    if not done:
        return say("First I look at the desktop.", look)
    if "bash" not in done:
        create = _call("str_replace_based_edit_tool", command="create", path="~/guest_book.py", file_text=_program())
        start = _call("bash", command="python3 ~/guest_book.py")
        return say(
            "I open the guest book, a small web page that comes with cambio_lab, in the browser.", create, start, look
        )
    places = _places(next(results(turn, "bash"), ""))
    if places is None:
        return None
    if "type" not in done:
        return say(
            "It has a form: a name, a greeting, and a field to draw in. I fill it in.", *_fill(places, turn), look
        )
    if "left_click_drag" not in done:
        return say("Now I draw a star, stroke by stroke.", *_draw(places["drawing"]), look)
    if done.count("bash") == 1:
        read = _call("bash", command="cat ~/guest-book.txt")
        return say("I sign, and read what the book says now.", _click(places["sign"]), look, read)
    *_, entry = results(turn, "bash")
    return say(
        f"{SAYS}I opened the guest book in the browser, read it, filled in the form, drew a star and signed. "
        f"The book has the entry: {' '.join(entry.split())}\n\n{HELP}"
    )


def _call(name: str, **arguments: Any) -> Block:
    return {"type": "tool_use", "name": name, "input": arguments}


def _program() -> str:
    return PROGRAM.read_text(encoding="utf-8")


def _places(output: str) -> Mapping[str, Any] | None:
    """Return where the page's fields are on the screen, as the program printed it."""
    for line in output.splitlines():
        if line.startswith("{"):
            return dict(json.loads(line))
    return None


def _fill(places: Mapping[str, Any], turn: Sequence[Message]) -> list[Block]:
    asked = " ".join(user_words(turn[0]).split())
    greeting = f"Hello! I was asked: {asked if len(asked) <= 120 else asked[:119] + '…'}"
    return [
        _click(places["name"]),
        member("type", text=NAME),
        member("key", text="Tab"),
        member("type", text=greeting),
    ]


def _draw(canvas: Sequence[float]) -> list[Block]:
    left, top, width, height = canvas
    corners = [[round(left + x * width), round(top + y * height)] for x, y in STAR]
    return [member("left_click_drag", start_coordinate=start, coordinate=end) for start, end in pairwise(corners)]


def _click(box: Sequence[float]) -> Block:
    left, top, width, height = box
    return member("left_click", coordinate=[round(left + width / 2), round(top + height / 2)])
