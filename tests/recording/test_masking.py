"""What a mask takes out, whatever the pieces that a stream comes in."""

from __future__ import annotations

from typing import Any

import pytest

from cambio_lab.recording.placeholders import Mask


@pytest.mark.parametrize(
    ("secrets", "text", "masked"),
    [
        ({"A": "abcd", "B": "abcdefgh"}, "abcdefgh abcd", "{{B}} {{A}}"),
        ({"PASS": "WORD", "PASSWORD": "hunter2"}, "hunter2 {{PASSWORD}}", "{{PASSWORD}} {{PASSWORD}}"),
        ({"A": ".*.*"}, ".*.* abcd", "{{A}} abcd"),
        ({"A": "päss"}, "pä päss", "pä {{A}}"),
        (["A"], "abcd", "abcd"),
        ({}, "abcd", "abcd"),
    ],
)
def test_the_longest_value_goes_first_and_placeholders_stay(secrets: Any, text: str, masked: str) -> None:
    mask = Mask(secrets)
    assert mask.text(text) == masked
    data = text.encode()
    assert mask.data(data) == masked.encode()
    for size in range(1, len(data) + 1):
        stream = mask.stream()
        given = [stream.feed(data[start : start + size]) for start in range(0, len(data), size)]
        assert b"".join([*given, stream.end()]) == masked.encode()


def test_json_is_masked_at_any_depth_keys_and_numbers_too() -> None:
    mask = Mask({"PIN": "1234"})
    value = {"a1234": [{"b": ("1234", 1234, 12345, True, None)}], "1234": 0.5}
    assert mask.json(value) == {"a{{PIN}}": [{"b": ["{{PIN}}", "{{PIN}}", 12345, True, None]}], "{{PIN}}": 0.5}


def test_a_stream_holds_back_no_more_than_a_value() -> None:
    stream = Mask({"PIN": "1234-5678"}).stream()
    assert len(stream.feed(b"x" * 1000)) >= 991


def test_the_end_of_what_was_cut_may_be_the_beginning_of_a_value() -> None:
    mask = Mask({"PIN": "päss-5678", "OTHER": "pale"})
    assert mask.data("päss-5678 pä".encode()[:-1], cut=True) == b"{{PIN}} {{PIN}}"
    assert mask.text("pä\ufffd", cut=True) == "{{PIN}}"
    assert mask.text("päss-5678\ufffd", cut=True) == "{{PIN}}\ufffd"
    assert mask.text("pal") == "pal"
