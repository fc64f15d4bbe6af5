"""Tool calls and other text of a server, made safe to show."""

from __future__ import annotations

from cambio_lab.client.display import describe, visible


def test_a_step_in_a_few_words() -> None:
    assert describe("left_click_drag", {"start_coordinate": [1, 2], "coordinate": [3, 4]}) == (
        "left_click_drag from (1, 2) (3, 4)"
    )
    assert describe("scroll", {"coordinate": [3, 4], "scroll_amount": 5}) == "scroll (3, 4) scroll_amount=5"
    assert describe("bash", {"command": "ls\n-l \x1b[31m"}) == "bash ls -l"
    assert len(describe("type", {"text": "x" * 10_000})) < 100


def test_visible_keeps_what_people_write() -> None:
    assert visible("äöß€漢字🙂👩‍👩‍👧\n\tx") == "äöß€漢字🙂👩‍👩‍👧\n\tx"
    assert visible("\x1b[1;31mred\x1b[0m\x07\x9b31m") == "red"
