"""Recorded runs: read, show, export, replay, compare and fork them; here, the formats that they are exported in.

Another package adds a format as an entry point in the group ``cambio_lab.exporters`` that names a class; the entry
point's name is the name of the format. docs/runs.md has an example.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConfigurationError, RunError

if TYPE_CHECKING:
    from .browser import Runs as Runs
    from .comparison import Comparison as Comparison
    from .comparison import compare as compare
    from .dataset import to_dataset as to_dataset
    from .run import Run as Run

_PLACES = {
    "Run": ".run",
    "Runs": ".browser",
    "compare": ".comparison",
    "Comparison": ".comparison",
    "to_dataset": ".dataset",
}
__all__ = [*_PLACES]
log = logging.getLogger(__name__)
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


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name], __name__), name)
    globals()[name] = value
    return value
