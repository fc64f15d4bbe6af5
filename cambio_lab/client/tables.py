"""Rows from the server as a list that a cell shows as a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ConfigurationError
from .action import clip, visible


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
