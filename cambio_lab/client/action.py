"""A tool call in a few words, the same wherever it is shown: cell, record, progress, panel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

LONGEST = 80
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|\x9b[0-?]*[ -/]*[@-~]")
_JOINERS = frozenset("\u200c\u200d\ufe0f")


def describe(tool: str, arguments: Mapping[str, Any]) -> str:
    """``left_click (412, 300)``, ``type 'Hello'``, ``bash ls -l``: one line of printable characters."""
    details = _details(arguments)
    return f"{tool} {details}".strip() if details else tool


def clip(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, without control characters, at most ``longest`` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def visible(text: str) -> str:
    """``text`` without ANSI sequences and control characters other than newline and tab, and without bidi overrides."""
    return "".join(c for c in _ANSI.sub("", text) if c in "\n\t" or (c.isprintable() or c in _JOINERS) or c == " ")


def _details(arguments: Mapping[str, Any]) -> str:
    parts: list[str] = []
    for name, value in arguments.items():
        if name == "action":
            continue
        if name in ("coordinate", "start_coordinate") and isinstance(value, list | tuple) and len(value) == 2:
            point = f"({value[0]}, {value[1]})"
            parts.append(f"from {point}" if name == "start_coordinate" else point)
        elif isinstance(value, str):
            parts.append(repr(clip(value, 60)) if name == "text" else clip(value, 60))
        elif isinstance(value, bool | int | float):
            parts.append(f"{name}={value}")
        else:
            parts.append(f"{name}={clip(str(value), 40)}")
    return clip(" ".join(parts))
