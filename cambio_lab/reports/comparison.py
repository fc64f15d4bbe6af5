"""Two runs side by side: their first difference, and what each took."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

from ..recording import Json
from ..recording.rows import Scene, counted, data_uri, describe, draw_scene, load_pandas, render, shorten

if TYPE_CHECKING:
    import pandas as pd

    from .run import Run

MAX_PAIRS = 500
MAX_SHOWN = 30
"""Lines with screenshots, from a few before the first difference on."""
MAX_TREE, MAX_TREE_LINES = 60_000, 60
"""Characters that are compared, lines that are shown."""
READS = frozenset({"read_page", "get_page_text", "find"})
_USAGE = (
    *("requests", "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"),
    "cost_usd",
)


@dataclass(frozen=True)
class Pair:
    """One line of an alignment: a step of each run, or one that only one of them has.

    ``same`` says that both did the same; ``tree`` is how the page that both read differs, as a unified diff.
    """

    left: Json | None
    right: Json | None
    same: bool
    tree: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        return not self.same or bool(self.tree)


@dataclass(frozen=True)
class Comparison:
    """``pairs`` aligns the runs' steps by what they did; ``totals`` has steps, time, tokens and cost of each."""

    left: Run
    right: Run
    pairs: list[Pair]

    @property
    def parts_at(self) -> int | None:
        """Index in ``pairs`` of the first difference; ``None`` when both did and read the same."""
        return next((index for index, pair in enumerate(self.pairs) if pair.differs), None)

    @property
    def similarity(self) -> float:
        """Share of the lines in which both did the same, 0 to 1."""
        return sum(pair.same for pair in self.pairs) / len(self.pairs) if self.pairs else 1.0

    @property
    def totals(self) -> dict[str, tuple[float, float]]:
        left, right = _totals(self.left), _totals(self.right)
        return {name: (left[name], right[name]) for name in left}

    @property
    def table(self) -> pd.DataFrame:
        """The alignment as a DataFrame: step and action of each run, and whether they are the same."""
        columns: dict[str, list[Any]] = {
            "left_step": [pair.left and pair.left["step"] for pair in self.pairs],
            "left": [_words(pair.left) for pair in self.pairs],
            "right_step": [pair.right and pair.right["step"] for pair in self.pairs],
            "right": [_words(pair.right) for pair in self.pairs],
            "same": [pair.same for pair in self.pairs],
        }
        return load_pandas().DataFrame(columns)

    def __repr__(self) -> str:
        at = self.parts_at
        where = "the same steps" if at is None else f"first difference: line {at + 1}: {_line(self.pairs[at])}"
        left, right = self.totals["steps"]
        return f"Comparison({self.left.name!r}, {self.right.name!r}: {left:g} and {counted(right, 'step')}, {where})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.to_html(), "text/plain": repr(self)}

    def to_html(self) -> str:
        """Return totals and the aligned steps, with what each run saw, as a fragment of HTML."""
        begin = max(0, min((self.parts_at or 0) - 3, len(self.pairs) - MAX_SHOWN))
        shown = range(begin, begin + MAX_SHOWN)
        sides = [_Side(self.left), _Side(self.right)]
        lines = [
            {
                "first": index == self.parts_at,
                "differs": pair.differs,
                "cells": [
                    side.cell(row, index in shown) for side, row in zip(sides, (pair.left, pair.right), strict=True)
                ],
                "tree": "\n".join(pair.tree),
            }
            for index, pair in enumerate(self.pairs[:MAX_PAIRS])
        ]
        return render(
            "reports",
            "comparison",
            summary=repr(self),
            headings=[f"{run.name} ({run.model})" for run in (self.left, self.right)],
            totals=[
                (name, [f"{value:.1f} s" if name == "seconds" else f"{value:.6g}" for value in values])
                for name, values in self.totals.items()
            ],
            lines=lines,
            left_out=max(0, len(self.pairs) - MAX_PAIRS),
        )


class _Side:
    """One run's half of the lines: its step in words, and the screenshot after it (or the last before it)."""

    def __init__(self, run: Run) -> None:
        self._find = run.contents.find
        self._after: dict[int, str | None] = {}
        last: str | None = None
        for row, following in zip_longest(run.rows, run.rows[1:]):
            look = following["screenshot"] if following and following["action"] == "screenshot" else None
            last = row["screenshot"] or row["unseen_screenshot"] or last
            self._after[row["step"]] = row["screenshot"] or row["unseen_screenshot"] or look or last

    def cell(self, row: Json | None, with_image: bool) -> tuple[str, str]:
        """Return the address of the image, if any, and the words."""
        digest = self._after[row["step"]] if row is not None and with_image else None
        if row is None or digest is None:
            return "", _numbered(row)
        image = draw_scene(Scene(0, digest, [row]), self._find, 420)
        return (image and data_uri(image)) or "", _numbered(row)


def compare(left: Run, right: Run) -> Comparison:
    """Align two runs by their actions and arguments; screenshots and words of the model do not count.

    What both read of a web page counts: the first tree that differs is a difference as well.
    """
    return Comparison(left, right, align(left.rows, right.rows))


def align(first: Sequence[Json], second: Sequence[Json]) -> list[Pair]:
    """Return the lines of two lists of steps. ``labextension/shared/align.ts`` does the same: one test checks both."""
    matcher = difflib.SequenceMatcher(None, [_key(row) for row in first], [_key(row) for row in second], autojunk=False)
    return [
        Pair(one, other, kind == "equal", _tree_difference(one, other))
        for kind, i1, i2, j1, j2 in matcher.get_opcodes()
        for one, other in zip_longest(first[i1:i2], second[j1:j2])
    ]


def _key(row: Json) -> str:
    return f"{row['action']} {json.dumps(row['arguments'], sort_keys=True)}"


def _tree_difference(left: Json | None, right: Json | None) -> tuple[str, ...]:
    """Return how the pages that both steps read differ: removed lines with ``-``, new ones with ``+``."""
    if left is None or right is None:
        return ()
    trees = (row["unseen_tree"] or (row["text"] if row["action"] in READS else "") for row in (left, right))
    one, other = (str(tree)[:MAX_TREE] for tree in trees)
    if not one or not other or one == other:
        return ()
    lines = islice(difflib.unified_diff(one.splitlines(), other.splitlines(), n=0, lineterm=""), 2, None)
    changed = (line[:300] for line in lines if not line.startswith("@@"))
    return tuple(islice(changed, MAX_TREE_LINES))


def _totals(run: Run) -> dict[str, float]:
    return {
        "steps": len(run.rows),
        "seconds": run.seconds,
        **{name: float(getattr(run.usage, name)) for name in _USAGE},
    }


def _words(row: Json | None) -> str:
    return "" if row is None else describe(row["action"], row["arguments"])


def _numbered(row: Json | None) -> str:
    return "" if row is None else shorten(f"{row['step']}. {_words(row)}", 200)


def _line(pair: Pair) -> str:
    if pair.same:
        return f"{_words(pair.left)[:120]} reads another page"
    if pair.left is not None and pair.right is not None:
        return f"{_words(pair.left)[:120]} against {_words(pair.right)[:120]}"
    side, row = ("left", pair.left) if pair.left is not None else ("right", pair.right)
    return f"only the {side} one does {_words(row)[:120]}"
