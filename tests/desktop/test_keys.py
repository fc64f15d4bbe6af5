"""Names of keys."""

from __future__ import annotations

import pytest

from cambio_lab.desktop import keys
from cambio_lab.errors import ActionError


@pytest.mark.parametrize(
    ("combo", "modifiers", "key"),
    [
        ("Return", (), 0xFF0D),
        ("enter", (), 0xFF0D),
        ("CTRL+S", (keys.CTRL,), ord("s")),
        ("S", (), ord("S")),
        ("cmd+a", (keys.SUPER,), ord("a")),
        ("ctrl+alt+Delete", (keys.CTRL, keys.ALT), 0xFFFF),
        ("+", (), ord("+")),
        ("ctrl++", (keys.CTRL,), ord("+")),
        ("ctrl+shift++", (keys.CTRL, keys.SHIFT), ord("+")),
        ("shift+2", (keys.SHIFT,), ord("@")),
        ("shift+a", (keys.SHIFT,), ord("A")),
        ("page-down", (), 0xFF56),
        ("Page Down", (), 0xFF56),
        ("F12", (), 0xFFC9),
        ("KP_7", (), 0xFFB7),
        (" ", (), 0x20),
        ("漢", (), 0x01006F22),
        ("🙂", (), 0x0101F642),
        ("U20AC", (), 0x010020AC),
        ("super", (), keys.SUPER),
        ("ctrl+shift", (keys.CTRL,), keys.SHIFT),
    ],
)
def test_combinations(combo: str, modifiers: tuple[int, ...], key: int) -> None:
    assert keys.parse(combo) == keys.Combo(modifiers, key)


@pytest.mark.parametrize(
    ("combo", "hint"),
    [("Retrun", "return"), ("Page_Dwn", "page_down"), ("ctlr+a", "ctrl"), ("ctrl+backspce", "backspace")],
)
def test_unknown_names_suggest_near_ones(combo: str, hint: str) -> None:
    with pytest.raises(ActionError) as caught:
        keys.parse(combo)
    assert hint in caught.value.describe()


@pytest.mark.parametrize("combo", ["", "   ", "a+b", "ctrl+", "+a", "ctrl+ +", "Return+a"])
def test_what_is_no_combination(combo: str) -> None:
    with pytest.raises(ActionError):
        keys.parse(combo)


def test_modifiers() -> None:
    assert keys.parse_modifiers("Ctrl+shift+ctrl") == (keys.CTRL, keys.SHIFT)
    assert keys.parse_modifiers(None) == keys.parse_modifiers("") == ()
    with pytest.raises(ActionError, match="'a'"):
        keys.parse_modifiers("ctrl+a")


def test_every_keysym_of_a_text_types_that_character() -> None:
    for char in "aZ0 ~äß€漢🙂":
        symbol = keys.character(char)
        assert chr(symbol if symbol < 0x100 else symbol - 0x01000000) == char
    with pytest.raises(ActionError, match=r"U\+0000"):
        keys.character("\0")
