"""Many recorded runs as a table: filter, compare two, export, delete."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..recording import Json
from ..recording.rows import load_pandas
from . import choose, write
from .comparison import Comparison, compare
from .run import Run

if TYPE_CHECKING:
    import pandas as pd

SHOWN = ("name", "task", "model", "verdict", "status", "steps", "cost_usd", "created_at", "tags", "note", "id")


@dataclass(frozen=True)
class Entry:
    """One run: what the table says of it, and how to load and delete it."""

    row: Json
    load: Callable[[], Awaitable[Run]]
    delete: Callable[[], Awaitable[None]] | None = None
    change: Callable[[Json], Awaitable[None]] | None = None
    """Sets ``tags`` and ``note``."""


class Runs:
    """A selection of recorded runs, newest first. Methods name a run by its place here or by (the start of) its id."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Runs:
        """The runs of an experiment or of files, with the verdicts that they have."""
        return cls([_entry(run) for run in runs])

    def filter(
        self,
        text: str = "",
        *,
        task: str | None = None,
        model: str | None = None,
        verdict: str | None = None,
        status: str | None = None,
        tag: str | None = None,
        min_cost_usd: float | None = None,
        max_cost_usd: float | None = None,
    ) -> Runs:
        """Return the runs that fit all that is given; ``text`` are words of name, id, task, model or tags.

        ``verdict`` is ``"success"``, ``"failure"`` or ``""`` (none).
        """
        exact = {"task": task, "model": model, "verdict": verdict, "status": status}
        low, high = min_cost_usd or 0.0, float("inf") if max_cost_usd is None else max_cost_usd

        def fits(row: Json) -> bool:
            words = " ".join(str(row[name]) for name in ("name", "id", "task", "model", "tags", "note")).lower()
            return (
                all(word in words for word in text.lower().split())
                and all(row[name] == value for name, value in exact.items() if value is not None)
                and (tag is None or tag in row["tags"])
                and low <= row["cost_usd"] <= high
            )

        return Runs([entry for entry in self.entries if fits(entry.row)])

    @property
    def frame(self) -> pd.DataFrame:
        """All rows and columns as a DataFrame (needs the ``analysis`` extra)."""
        return load_pandas().DataFrame([entry.row for entry in self.entries])

    async def open(self, which: int | str) -> Run:
        """Load one run."""
        return await self._entry(which).load()

    async def compare(self, left: int | str, right: int | str) -> Comparison:
        """Align two runs step by step."""
        first, second = await self.open(left), await self.open(right)
        return await asyncio.to_thread(compare, first, second)

    async def export(self, path: str | Path, *which: int | str, format: str | None = None) -> Path:
        """Write runs (all, unless some are named) to one file in the format of its ending; see docs/runs.md."""
        target = Path(path)
        choose(target, format)  # refuse a wrong ending before anything is loaded
        chosen = [self._entry(one) for one in which] or self.entries
        if not chosen:
            raise ConfigurationError("There is no run to export.")
        found = [await entry.load() for entry in chosen]
        await asyncio.to_thread(write, found, target, format)
        return target

    async def delete(self, *which: int | str) -> None:
        """Delete the records of these runs for good; sessions must have ended."""
        for entry in [self._entry(one) for one in which]:
            if entry.delete is None:
                raise ConfigurationError(f"{entry.row['name']} is kept in an experiment or a file.")
            await entry.delete()
            self.entries.remove(entry)

    async def annotate(self, which: int | str, *, tags: Sequence[str] | None = None, note: str | None = None) -> None:
        """Tag a run of the server, or note something about it; ``None`` leaves what is there."""
        entry = self._entry(which)
        if entry.change is None:
            raise ConfigurationError("This run is a cell or a file.", hint="Use experiment.annotate(...) for a cell.")
        given = {"tags": None if tags is None else list(tags), "note": note}
        said: Json = {name: value for name, value in given.items() if value is not None}
        await entry.change(said)
        entry.row.update(said)

    def _entry(self, which: int | str) -> Entry:
        if isinstance(which, int):
            return self.entries[which]
        found = [entry for entry in self.entries if str(entry.row["id"]).startswith(which)]
        if len(found) != 1:
            raise ConfigurationError(f"{len(found)} of these runs have an id that begins with {which!r}.")
        return found[0]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Json]:
        return (entry.row for entry in self.entries)

    def __repr__(self) -> str:
        return f"Runs({len(self)})"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("", *SHOWN))
        rows = (
            f"<tr><th>{number}</th>" + "".join(f"<td>{html.escape(str(row[name]))}</td>" for name in SHOWN) + "</tr>"
            for number, row in enumerate(self)
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table><p>{len(self)} runs</p>"


def row_of(**given: Any) -> Json:
    """Return a whole row: every column is there."""
    empty: Json = dict.fromkeys(SHOWN, "") | {"steps": 0, "cost_usd": 0.0, "tags": ()}
    return empty | given


def _entry(run: Run) -> Entry:
    facts, result = run.manifest["session"], run.result
    known: Json = {"status": facts.get("status", ""), "created_at": facts.get("created_at") or ""}
    if result is not None:
        known["verdict"] = {None: "", True: "success", False: "failure"}[result.success]
        known |= {"task": result.task, "tags": (result.experiment, result.setting, *result.tags)}
    row = row_of(id=run.id, name=run.name, model=run.model, steps=len(run.rows), cost_usd=run.usage.cost_usd, **known)

    async def load() -> Run:
        return run

    return Entry(row, load)
