"""Two runs side by side: their first difference, and what each took."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..recording import drawing
from ..recording.contents import Json, dump
from ..recording.rows import counted, describe, load_pandas
from .viewer import shorten

if TYPE_CHECKING:
    import pandas as pd

    from .run import Run

MAX_PAIRS = 500


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
        pd = load_pandas()
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
        where = "the same steps" if at is None else f"first difference: line {at + 1}: {_line(self.pairs[at])}"
        left, right = self.totals["steps"]
        return f"Comparison({self.left.name!r}, {self.right.name!r}: {left:g} and {counted(right, 'step')}, {where})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.to_html(), "text/plain": repr(self)}

    def to_html(self) -> str:
        """Return totals, what each run saw at the first difference, and the aligned steps as a fragment of HTML."""
        return drawing.render(
            "reports",
            "comparison",
            summary=repr(self),
            headings=[f"{run.name} ({run.model})" for run in (self.left, self.right)],
            totals=[(name, [_value(name, value) for value in values]) for name, values in self.totals.items()],
            figures=self._figures(),
            count=len(self.pairs),
            pairs=[(pair.same, _numbered(pair.left), _numbered(pair.right)) for pair in self.pairs[:MAX_PAIRS]],
        )

    def _figures(self) -> list[tuple[str, str, str]]:
        """Return what each run saw at the first difference, with what it did there drawn in."""
        at = self.parts_at
        if at is None:
            return []
        sides = (
            (self.left, [pair.left for pair in self.pairs[at:]]),
            (self.right, [pair.right for pair in self.pairs[at:]]),
        )
        return [_figure(run, next((row for row in found if row is not None), None)) for run, found in sides]


def _figure(run: Run, row: Json | None) -> tuple[str, str, str]:
    scene = next((scene for scene in drawing.scenes(run.rows) if row in scene.steps), None)
    image = b""
    if scene is not None and row is not None:
        image = drawing.draw_scene(drawing.Scene(scene.index, scene.digest, [row]), run.contents.find, 640)
    caption = shorten(f"{run.name}: {_words(row) or 'no further steps'}", 300)
    return (image and drawing.data_uri(image)) or "", caption, f"what {run.name} saw"


_TOTALS = (
    *("steps", "seconds", "requests", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    *("output_tokens", "cost_usd"),
)


def compare(left: Run, right: Run) -> Comparison:
    """Align two runs by their actions and arguments; screenshots and words of the model do not count."""
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
    return "" if row is None else shorten(f"{row['step']}. {_words(row)}", 200)


def _line(pair: Pair) -> str:
    side, row = ("left", pair.left) if pair.left is not None else ("right", pair.right)
    return f"only the {side} one does {_words(row)[:120]}"
