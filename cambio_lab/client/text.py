"""What comes from a server as text that is safe to show: tool calls in a few words, cut and cleaned, and tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigurationError

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


def shorten(value: str, limit: int) -> str:
    """Return the beginning and the end of ``value``, and how much is missing between them."""
    if len(value) <= limit:
        return value
    half = limit // 2
    return f"{value[:half]}\n… {len(value) - 2 * half:,} characters left out …\n{value[-half:]}"


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


class Table(list[dict[str, Any]]):
    """A list of rows (dicts). ``total`` counts what the server has, ``columns`` is what a cell shows."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, total: int | None = None) -> None:
        super().__init__(dict(row) for row in rows)
        self.columns = list(columns)
        self.total = len(self) if total is None else total

    def to_frame(self) -> Any:
        """All fields as a pandas DataFrame (needs the ``analysis`` extra)."""
        try:
            import pandas
        except ImportError:
            raise ConfigurationError(
                "A DataFrame needs pandas.",
                hint='Install it with: pip install "cambio-lab[analysis]". The table itself is a list of dicts.',
            ) from None
        return pandas.DataFrame(list(self))

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col" style="text-align:left">{html.escape(name.replace("_", " "))}</th>'
            for name in self.columns
        )
        body = "".join(
            "<tr>"
            + "".join(f'<td style="text-align:left">{_cell(row.get(name))}</td>' for name in self.columns)
            + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{self._count()}</p>"

    def __repr__(self) -> str:
        rows = [self.columns, *([clip(_text(row.get(name)), 60) for name in self.columns] for row in self)]
        widths = [max(len(row[index]) for row in rows) for index in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, self._count()])

    def _count(self) -> str:
        return f"{len(self)} of {self.total}" if self.total > len(self) else f"{len(self)} in all"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    return str(value)


def _cell(value: Any) -> str:
    text = visible(_text(value))
    return html.escape(text if len(text) <= 500 else text[:499] + "…").replace("\n", "<br>")
