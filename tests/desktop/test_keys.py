"""Names of keys."""

from __future__ import annotations

import pytest

from cambio_lab.desktop import devices, keys
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
        ("eacute", (), ord("é")),
        ("Eacute", (), ord("É")),
        ("ssharp", (), ord("ß")),
        ("ODIAERESIS", (), ord("ö")),
        ("ae", (), ord("æ")),
        ("AE", (), ord("Æ")),
        ("degree", (), ord("°")),
        ("hyphen", (), ord("-")),
        ("KP_Prior", (), 0xFF9A),
        ("KP_Next", (), 0xFF9B),
        ("kp_f1", (), 0xFF91),
        ("XF86AudioPlay", (), 0x1008FF14),
        ("xf86audiomicmute", (), 0x1008FFB2),
        ("Mode_switch", (), 0xFF7E),
        ("dead_acute", (), 0xFE51),
        ("dead_a", (), 0xFE80),
        ("dead_A", (), 0xFE81),
        ("Henkan-Mode", (), 0xFF23),
        ("Execute", (), 0xFF62),
        ("shift+ö", (keys.SHIFT,), ord("Ö")),
        ("shift+ß", (keys.SHIFT,), ord("ß")),
        ("ctrl+Ä", (keys.CTRL,), ord("ä")),
        ("ctrl+Ж", (keys.CTRL,), 0x01000436),
        ("ctrl+ẞ", (keys.CTRL,), 0x01001E9E),
        ("ctrl+İ", (keys.CTRL,), 0x01000130),
        ("ctrl+shift+ä", (keys.CTRL, keys.SHIFT), ord("Ä")),
    ],
)
def test_combinations(combo: str, modifiers: tuple[int, ...], key: int) -> None:
    assert keys.parse(combo) == keys.Combo(modifiers, key)


@pytest.mark.parametrize(
    ("combo", "hint"),
    [
        ("Retrun", "return"),
        ("Page_Dwn", "page_down"),
        ("ctlr+a", "ctrl"),
        ("ctrl+backspce", "backspace"),
        ("eacut", "eacute"),
    ],
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
    assert devices._modifiers(None) == devices._modifiers("") == ()
    with pytest.raises(ActionError, match="'a'"):
        keys.parse_modifiers("ctrl+a")


def test_every_keysym_of_a_text_types_that_character() -> None:
    for char in "aZ0 ~äß€漢🙂":
        symbol = keys.character(char)
        assert chr(symbol if symbol < 0x100 else symbol - 0x01000000) == char
    for bad in "\0\ud83d\udfff":
        with pytest.raises(ActionError, match=rf"U\+{ord(bad):04X}"):
            keys.character(bad)
    with pytest.raises(ActionError, match="surrogate"):
        keys.parse("ctrl+\ud83d")


def test_names_of_x11() -> None:
    assert keys.KEYSYMS["ydiaeresis"] == 0xFF
    assert keys.KEYSYMS["dead_currency"] == 0xFE6F
    assert keys.KEYSYMS["XF86FullScreen"] == 0x1008FFB8
    for name, symbol in keys.KEYSYMS.items():
        assert keys.parse(name).key == (symbol if name != "hyphen" else ord("-"))
