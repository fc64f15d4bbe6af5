"""The editor tool keeps what it does not edit: line ends, encoding, byte order mark."""

from __future__ import annotations

import codecs

import pytest

from cambio_lab.agent.shell import Document, _home
from cambio_lab.errors import ActionError

TEXT = "first\nsecond ü\nthird\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
    ],
)
def test_an_edit_changes_only_what_it_names(end: str, mark: bytes, encoding: str) -> None:
    def data(text: str) -> bytes:
        return mark + text.replace("\n", end).encode(encoding)

    document = Document.decode(data(TEXT), "f")
    assert document.text == TEXT and document.encode("f") == data(TEXT)
    at = TEXT.index("second")
    edited = document.replace(at, at + len("second ü\nth"), "2nd\nand more\nTH")
    assert edited.encode("f") == data("first\n2nd\nand more\nTHird\n")


@pytest.mark.parametrize(
    ("path", "meant"),
    [("~", "."), ("~/a b", "a b"), ("$HOME/a", "a"), ("${HOME}//a", "a"), ("~a/b", "~a/b"), ("$HOMES/a", "$HOMES/a")],
)
def test_the_home_has_the_names_that_a_shell_gives_it(path: str, meant: str) -> None:
    assert _home(path) == meant


def test_mixed_line_ends_stay_where_they_are() -> None:
    document = Document.decode(b"a\r\nb\nc\r\nd\rx\r\n", "f")
    assert document.text == "a\nb\nc\nd\rx\n"
    at = document.text.index("c")
    assert document.replace(at, at + 1, "C\nC").encode("f") == b"a\r\nb\nC\r\nC\r\nd\rx\r\n"
    at = document.text.index("x")
    assert document.replace(at, at + 1, "y").encode("f") == b"a\r\nb\nc\r\nd\ry\r\n"


@pytest.mark.parametrize("data", [b"caf\xe9", codecs.BOM_UTF16_LE + b"x", b"\xff\xfe\x00\xd8\x00\x00"])
def test_other_encodings_are_refused(data: bytes) -> None:
    with pytest.raises(ActionError, match="use the shell"):
        Document.decode(data, "f")
