"""Recorded runs: read, show, export, replay, compare and fork them; here, a table of many and the export formats.

Another package adds a format as an entry point in the group ``cambio_lab.exporters`` that names a class; the entry
point's name is the name of the format. docs/runs.md has an example.
"""

from __future__ import annotations

import asyncio
import datetime
import html
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConfigurationError, RunError

if TYPE_CHECKING:
    import pandas as pd

    from ..recording import Json
    from .comparison import Comparison as Comparison
    from .comparison import compare as compare
    from .dataset import to_dataset as to_dataset
    from .run import Run as Run

_PLACES = {
    "Run": ".run",
    "compare": ".comparison",
    "Comparison": ".comparison",
    "to_dataset": ".dataset",
}
__all__ = ["Runs", *_PLACES]
log = logging.getLogger(__name__)
SHOWN = ("name", "task", "model", "verdict", "status", "steps", "cost_usd", "created_at", "tags", "note", "id")
GROUP = "cambio_lab.exporters"
_OURS = {
    "cambio": "documents:CambioExporter",
    "html": "documents:HtmlExporter",
    "markdown": "documents:MarkdownExporter",
    "inspect": "trajectories:InspectExporter",
    "atif": "trajectories:AtifExporter",
    "dataset": "dataset:DatasetExporter",
    "messages": "dataset:MessagesExporter",
    "video": "video:VideoExporter",
}


class Exporter(Protocol):
    """A format. The class is made without arguments."""

    summary: str
    """One line for ``--help``."""
    suffixes: Sequence[str]
    """Endings of its files, each with its dot, the usual one first. Empty: the target is a folder."""

    def write(self, runs: Sequence[Run], target: Path) -> None:
        """Write ``runs``, at least one, to ``target``. A format that holds one run calls :func:`only`."""


def available() -> dict[str, EntryPoint]:
    """Return the entry point of every format by name; an installed package cannot replace one of ours."""
    ours = {name: EntryPoint(name, f"{__name__}.{value}", GROUP) for name, value in _OURS.items()}
    return {**{entry.name: entry for entry in entry_points(group=GROUP)}, **ours}


def load(name: str) -> Exporter:
    """Return the exporter of a format. :class:`ConfigurationError` when there is none, or it cannot be imported."""
    formats = available()
    if name not in formats:
        raise ConfigurationError(f"There is no format {name!r}.", hint=f"Choose one of: {', '.join(sorted(formats))}.")
    try:
        exporter: Exporter = formats[name].load()()
    except Exception as error:  # code of any package
        raise ConfigurationError(f"The exporter {name!r} cannot be loaded: {error!r}.") from error
    return exporter


def choose(target: Path, name: str | None = None) -> Exporter:
    """Return the exporter called ``name``, or else the only one whose ending ``target`` has.

    :class:`ConfigurationError` when no format or several have the ending, or the named one has others.
    """
    if name is None:
        known = _loadable()
        longest = max(_ending(one, target) for one in known.values())
        found = [name for name, one in sorted(known.items()) if longest and _ending(one, target) == longest]
        if len(found) != 1:
            endings = ", ".join(sorted({suffix for one in known.values() for suffix in one.suffixes}))
            what = f"Formats with this ending: {', '.join(found)}." if found else f"Endings: {endings}."
            raise ConfigurationError(
                f"{target.name!r} does not say its format.", hint=f"Name one with --format. {what}"
            )
        return known[found[0]]
    exporter = load(name)
    if exporter.suffixes and not _ending(exporter, target) and not target.is_dir():
        endings = " or ".join(exporter.suffixes)
        raise ConfigurationError(f"A {name} file ends in {endings}, not as {target.name!r} does.")
    return exporter


def write(runs: Sequence[Run], target: Path, name: str | None = None) -> None:
    """Write ``runs`` to ``target`` in the format ``name``, or in the one of the target's ending."""
    exporter = choose(target, name)
    try:
        exporter.write(runs, target)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror or error}.") from error


def only(runs: Sequence[Run]) -> Run:
    """Return the one run of ``runs``."""
    if len(runs) != 1:
        raise ConfigurationError("This format holds one run.", hint="Export each to a file of its own.")
    return runs[0]


def time_text(seconds: float | None) -> str:
    """Return epoch seconds as other formats write times: ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds or 0.0, datetime.UTC).isoformat()


def _loadable() -> dict[str, Exporter]:
    found = {}
    for name in available():
        try:
            found[name] = load(name)
        except ConfigurationError as error:
            log.warning("exporter left out: %s", error.describe())
    return found


def _ending(exporter: Exporter, target: Path) -> int:
    """Return the length of the format's longest ending that ``target`` has, 0 for none."""
    return max((len(suffix) for suffix in exporter.suffixes if target.name.lower().endswith(suffix)), default=0)


def formats() -> list[dict[str, str]]:
    """Return ``name``, ``ending`` and ``summary`` of every format that makes one file."""
    found = sorted(_loadable().items())
    return [{"name": name, "ending": one.suffixes[0], "summary": one.summary} for name, one in found if one.suffixes]


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
        from ..recording.rows import load_pandas

        return load_pandas().DataFrame([entry.row for entry in self.entries])

    async def open(self, which: int | str) -> Run:
        """Load one run."""
        return await self._entry(which).load()

    async def compare(self, left: int | str, right: int | str) -> Comparison:
        """Align two runs step by step."""
        from .comparison import compare

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


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name], __name__), name)
    globals()[name] = value
    return value
