"""From a person's RFB events to actions: clicks, drags, wheel, keys and text, each once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cambio_lab.desktop.keys import MOST_WAITING, HumanActions
from cambio_lab.desktop.rfb.viewer_filter import ViewerInput

SHIFT, CTRL, RETURN = 0xFFE1, 0xFFE3, 0xFF0D


def actions(person: HumanActions) -> list[tuple[str, dict[str, Any]]]:
    return [(action.tool, action.arguments) for action in person.take(everything=True)]


def click(person: HumanActions, x: int, y: int, button: int = 1) -> None:
    person.pointer(button, x, y)
    person.pointer(0, x + 1, y)


def press(person: HumanActions, *symbols: int) -> None:
    for symbol in symbols:
        person.key(True, symbol)
    for symbol in reversed(symbols):
        person.key(False, symbol)


def test_clicks_that_follow_at_once_are_one_double_click(monkeypatch: pytest.MonkeyPatch) -> None:
    person = HumanActions()
    for _ in range(2):
        click(person, 10, 20)
    click(person, 300, 20)
    click(person, 5, 6, button=4)
    assert actions(person) == [
        ("double_click", {"coordinate": [10, 20]}),
        ("left_click", {"coordinate": [300, 20]}),
        ("right_click", {"coordinate": [5, 6]}),
    ]
    click(person, 10, 20)
    now = time.monotonic()
    monkeypatch.setattr("cambio_lab.desktop.keys.time.monotonic", lambda: now + 2)
    click(person, 10, 20)
    assert [tool for tool, _ in actions(person)] == ["left_click", "left_click"]


def test_drags_and_the_wheel() -> None:
    person = HumanActions()
    person.pointer(1, 10, 10)
    person.pointer(1, 50, 60)
    person.pointer(0, 90, 100)
    for _ in range(3):
        person.pointer(16, 40, 40)
        person.pointer(0, 40, 40)
    assert actions(person) == [
        ("left_click_drag", {"start_coordinate": [10, 10], "coordinate": [90, 100]}),
        ("scroll", {"coordinate": [40, 40], "scroll_direction": "down", "scroll_amount": 3}),
    ]


def test_text_is_one_action_and_shortcuts_are_keys() -> None:
    person = HumanActions()
    for symbol in (ord("a"), 0xFC, 0x01000000 + ord("漢")):
        press(person, symbol)
    press(person, SHIFT, ord("B"))
    press(person, RETURN)
    press(person, CTRL, ord("s"))
    press(person, CTRL, SHIFT, ord("V"))
    press(person, CTRL, SHIFT, ord("?"))
    assert actions(person) == [
        ("type", {"text": "aü漢B"}),
        ("key", {"text": "Return"}),
        ("key", {"text": "ctrl+s"}),
        ("key", {"text": "ctrl+shift+v"}),
        ("key", {"text": "ctrl+?"}),
    ]


def test_what_is_not_taken_is_bounded() -> None:
    person = HumanActions()
    for number in range(10 * MOST_WAITING):
        click(person, 10 * number, 0)
    assert len(person.take(everything=True)) == MOST_WAITING


def test_only_what_reaches_the_desktop_counts() -> None:
    viewer = ViewerInput(may_act=False)
    viewer.feed(b"\x01" + bytes([5, 1, 0, 10, 0, 20]) + bytes([5, 0, 0, 10, 0, 20]))
    assert not viewer.actions.waiting
    viewer.allow(True)
    viewer.feed(bytes([5, 1, 0, 10, 0, 20]) + bytes([5, 0, 0, 10, 0, 20]) + bytes([4, 1, 0, 0, 0, 0, 0, 97]))
    assert [action.tool for action in viewer.actions.take(everything=True)] == ["left_click", "type"]
