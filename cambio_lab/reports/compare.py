"""Two runs side by side: where they part, and what each took."""

from __future__ import annotations

import difflib
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..recording import drawing
from ..recording.contents import Json, dump
from ..recording.rows import describe

if TYPE_CHECKING:
    import pandas as pd

    from .run import Run

_CELL = 'style="text-align:left;padding:2px 8px;vertical-align:top"'


@dataclass(frozen=True)
class Pair:
    """One line of an alignment: the same action in both, or one that only one of them has."""

    left: Json | None
    right: Json | None

    @property
    def same(self) -> bool:
        return self.left is not None and self.right is not None


@dataclass(frozen=True)
class Comparison:
    """``pairs`` aligns the runs' steps by what they did; ``totals`` has steps, time, tokens and cost of each."""

    left: Run
    right: Run
    pairs: list[Pair]

    @property
    def parts_at(self) -> int | None:
        """Index in ``pairs`` of the first difference; ``None`` when both did the same."""
        return next((index for index, pair in enumerate(self.pairs) if not pair.same), None)

    @property
    def similarity(self) -> float:
        """Share of the steps that both took, 0 to 1."""
        return sum(pair.same for pair in self.pairs) / len(self.pairs) if self.pairs else 1.0

    @property
    def totals(self) -> dict[str, tuple[float, float]]:
        return {name: (_total(self.left, name), _total(self.right, name)) for name in _TOTALS}

    @property
    def table(self) -> pd.DataFrame:
        """The alignment as a DataFrame: step and action of each run, and whether they are the same."""
        import pandas as pd

        columns: dict[str, list[Any]] = {
            "left_step": [pair.left and pair.left["step"] for pair in self.pairs],
            "left": [_words(pair.left) for pair in self.pairs],
            "right_step": [pair.right and pair.right["step"] for pair in self.pairs],
            "right": [_words(pair.right) for pair in self.pairs],
            "same": [pair.same for pair in self.pairs],
        }
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        at = self.parts_at
        where = "they do the same" if at is None else f"they part at line {at + 1}: {_line(self.pairs[at])}"
        left, right = self.totals["steps"]
        return f"Comparison({self.left.name!r}, {self.right.name!r}: {left:g} and {right:g} steps, {where})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        parts = [f"<p>{html.escape(repr(self))}</p>", self._totals_table(), self._pictures(), self._pairs_table()]
        return {"text/html": "\n".join(parts), "text/plain": repr(self)}

    def _totals_table(self) -> str:
        head = f"<tr><th></th><th {_CELL}>{_heading(self.left)}</th><th {_CELL}>{_heading(self.right)}</th></tr>"
        rows = ""
        for name, values in self.totals.items():
            cells = "".join(f"<td {_CELL}>{_value(name, value)}</td>" for value in values)
            rows += f"<tr><th {_CELL}>{name}</th>{cells}</tr>\n"
        return f"<table>{head}{rows}</table>"

    def _pictures(self) -> str:
        """What each saw where they part, with what it did there drawn on it."""
        at = self.parts_at
        if at is None:
            return ""
        figures = []
        for run, side in ((self.left, "left"), (self.right, "right")):
            chosen = next((row for pair in self.pairs[at:] if (row := getattr(pair, side)) is not None), None)
            scene = next((scene for scene in drawing.scenes(run.rows) if chosen in scene.steps), None)
            data = run.contents.find(scene.digest) if scene is not None and scene.digest else None
            image = ""
            if data is not None and chosen is not None:
                uri = drawing.data_uri(drawing.draw(data, [chosen], 640))
                image = f'<img src="{uri}" alt="what {side} saw" style="max-width:100%">'
            words = html.escape(f"{run.name}: {_words(chosen) or 'nothing more'}"[:300])
            style = "display:inline-block;width:420px;margin:4px;vertical-align:top"
            figures.append(f'<figure style="{style}">{image}<figcaption>{words}</figcaption></figure>')
        return "".join(figures)

    def _pairs_table(self) -> str:
        rows = []
        for pair in self.pairs[:500]:
            color = "" if pair.same else ' style="background:#ffd7d733"'
            cells = "".join(f"<td {_CELL}>{html.escape(_numbered(row)[:200])}</td>" for row in (pair.left, pair.right))
            rows.append(f"<tr{color}>{cells}</tr>")
        return f"<details><summary>{len(self.pairs)} lines</summary><table>{''.join(rows)}</table></details>"


_TOTALS = (
    *("steps", "seconds", "requests", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    *("output_tokens", "cost_usd"),
)


def compare(left: Run, right: Run) -> Comparison:
    """Align two runs by their actions and arguments; pictures and words of the model do not count."""
    first, second = left.rows, right.rows
    matcher = difflib.SequenceMatcher(None, [_key(row) for row in first], [_key(row) for row in second], autojunk=False)
    pairs: list[Pair] = []
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind == "equal":
            pairs += [Pair(one, other) for one, other in zip(first[i1:i2], second[j1:j2], strict=True)]
        else:
            pairs += [Pair(row, None) for row in first[i1:i2]]
            pairs += [Pair(None, row) for row in second[j1:j2]]
    return Comparison(left, right, pairs)


def _key(row: Json) -> str:
    return f"{row['action']} {dump(dict(sorted(row['arguments'].items())))}"


def _total(run: Run, name: str) -> float:
    if name == "steps":
        return len(run.rows)
    return float(run.seconds if name == "seconds" else getattr(run.usage, name))


def _value(name: str, value: float) -> str:
    return f"{value:.1f} s" if name == "seconds" else f"{value:.6g}"


def _words(row: Json | None) -> str:
    return "" if row is None else describe(row["action"], row["arguments"])


def _numbered(row: Json | None) -> str:
    return "" if row is None else f"{row['step']}. {_words(row)}"


def _line(pair: Pair) -> str:
    side, row = ("left", pair.left) if pair.left is not None else ("right", pair.right)
    return f"only the {side} one does {_words(row)[:120]}"


def _heading(run: Run) -> str:
    return html.escape(f"{run.name} ({run.model})")
