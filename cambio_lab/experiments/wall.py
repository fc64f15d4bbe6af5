"""How an experiment looks: a line in a terminal; in a notebook and the sidebar its wall of bar, grid and desktops.

In a notebook the output is plain HTML, updated in place: unlike a widget it shows without a kernel.
"""

from __future__ import annotations

import base64
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from jinja2 import Environment

from ..recording import walls
from .engine import Mark
from .grid import Grid
from .ledger import CellRow
from .scheduler import Tally

Json = dict[str, Any]
WALL = 24
"""At most this many thumbnails on the wall."""
_PAGE = Environment(autoescape=True).from_string(Path(__file__).with_name("wall.html").read_text("utf-8"))
_COLOURS = {"success": "#3d9970", "other": "#d9822b", "failed": "#c0392b", "running": "#2a6fbb", "open": "#d7dbe0"}
_MARKS = {  # the state of a cell: how a bar's share is called, and a sign for who does not see colours
    "success": ("success", "✓"),
    "failure": ("other", "✗"),
    "none": ("failed", "!"),
    "running": ("running", "…"),
    "open": ("open", " "),
}


def tally_of(grid: Grid, rows: Sequence[CellRow]) -> Tally:
    """Return the counts of cells as they stand, with what their counted attempts cost."""
    known, one = {row.cell_id: row.outcome for row in rows}, len(grid.settings) == 1
    marks = {}
    for cell in grid:
        mark = Mark(cell.cell_id, cell.task.name, cell.model if one else f"{cell.model}, {cell.setting}")
        marks[mark.id] = mark.ended(known.get(mark.id))
    done = [row.outcome for row in rows if row.outcome is not None and row.state == "done"]
    success, failed = sum(outcome.success for outcome in done), sum(row.state == "failed" for row in rows)
    dollars, steps = sum(outcome.usage.cost_usd for outcome in done), sum(outcome.steps for outcome in done)
    return Tally(len(grid), len(done), success, failed, 0, dollars, steps, cells=marks)


def words(tally: Tally) -> str:
    """The tally as a line: done, failed, running, spend, time left."""
    parts = [f"{tally.done + tally.failed}/{tally.total} done", f"{tally.success} succeeded"]
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if tally.retries:
        parts.append(f"{tally.retries} tried again")
    if not tally.ended:
        parts.append(f"{tally.running} running")
    parts.append(f"${tally.spent_usd:.2f}")
    if tally.ended:
        parts.append(f"{duration(tally.seconds)}, {tally.ended.replace('_', ' ')}")
    elif tally.left_seconds is not None:
        parts.append(f"{duration(tally.left_seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``42 s``, ``3:05 min``, ``2:07 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def describe(tally: Tally, *, identity: str = "", name: str = "", directory: Path | None = None) -> Json:
    """Return the wall as JSON, which both the notebook's output and the sidebar draw: counts, cells, running desktops.

    ``directory`` is the experiment's; ``identity`` and ``name`` are what it is known by.
    """
    marks = tally.cells.values()
    running = {item.cell_id: {"state": "running", "reason": f"{item.state}, step {item.steps}"} for item in tally.live}
    return {
        "id": identity,
        "name": name,
        "directory": str(directory.absolute()) if directory else "",
        "words": words(tally),
        "ended": tally.ended,
        "total": tally.total,
        "done": tally.done,
        "success": tally.success,
        "failed": tally.failed,
        "running": tally.running,
        "cells": [asdict(mark) | (running.get(mark.id, {}) if mark.state == "open" else {}) for mark in marks],
        "live": [
            {
                "id": item.cell_id,
                "state": item.state,
                "steps": item.steps,
                "cost_usd": item.cost_usd,
                "thumbnail": base64.b64encode(item.thumbnail or b"").decode(),
            }
            for item in tally.live[:WALL]
        ],
        "more": max(0, len(tally.live) - WALL),
    }


def as_html(wall: Json) -> str:
    """Return bar, line, grid of cells and thumbnails of what runs; readable where styles are removed, too.

    A cell links to its run file relative to the working directory (a notebook's own); in JupyterLab a click opens it
    wherever it lies.
    """
    failed, running, success = wall["failed"], wall["running"], wall["success"]
    left = max(0, wall["total"] - wall["done"] - failed - running)
    shares = {"success": success, "other": wall["done"] - success, "failed": failed, "running": running, "open": left}
    cells = [_linked(cell, wall["directory"]) for cell in wall["cells"]]
    columns = list(dict.fromkeys(cell["column"] for cell in cells))
    grid: dict[str, dict[str, list[Json]]] = {}
    for cell in cells:
        grid.setdefault(cell["task"], {name: [] for name in columns})[cell["column"]].append(cell)
    return _PAGE.render(
        wall=wall,
        shares=shares.items(),
        colours=_COLOURS,
        marks=_MARKS,
        grid=grid,
        columns=columns,
        failures=[cell for cell in cells if cell["state"] in ("failure", "none")],
    )


def _linked(cell: Json, directory: str) -> Json:
    path = Path(directory) / "runs" / cell["run"]
    href = os.path.relpath(path).replace(os.sep, "/") if directory and cell["run"] else ""
    title = f"{cell['id']}: {cell['state']}" + (f" ({cell['reason']})" if cell["reason"] else "")
    return {**cell, "href": href, "title": title}


logger = logging.getLogger(__name__)
LINE_SECONDS = 1.0
HTML_SECONDS = 0.5
CELL_SECONDS = 0.002
"""Each cell of the grid makes updates this much rarer: a large page costs the browser more."""


class Display:
    """Shows a tally; this one nothing. ``thumbnails`` says whether it wants thumbnails."""

    thumbnails = False

    def show(self, tally: Tally) -> None:
        """The tally has changed."""

    def close(self, tally: Tally) -> None:
        """The run is over."""


class Terminal(Display):
    """One line, rewritten in place on a terminal and repeated every half minute in a log file."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rewrites = self._stream.isatty()
        self._last = -1e9

    def show(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._last < (LINE_SECONDS if self._rewrites else 30.0):
            return
        self._last = now
        self._write(tally, end="" if self._rewrites else "\n")

    def close(self, tally: Tally) -> None:
        self._write(tally, end="\n")

    def _write(self, tally: Tally, end: str) -> None:
        done = (tally.done + tally.failed) * 24 // max(1, tally.total)
        start = "\r\x1b[K" if self._rewrites else ""
        self._stream.write(f"{start}[{'#' * done}{'.' * (24 - done)}] {words(tally)}{end}")
        self._stream.flush()


class Page(Display):
    """A notebook's output, updated in place. ``update`` is given HTML; ``about`` is as for :func:`describe`."""

    thumbnails = True

    def __init__(self, update: Callable[[str], None], **about: Any) -> None:
        self._update = update
        self._about = about
        self._last = -1e9

    def show(self, tally: Tally) -> None:
        if self._due(tally):
            self.close(tally)

    def _due(self, tally: Tally) -> bool:
        now = time.monotonic()
        due = now - self._last >= HTML_SECONDS + CELL_SECONDS * len(tally.cells)
        self._last = now if due else self._last
        return due

    def close(self, tally: Tally) -> None:
        self._update(as_html(describe(tally, **self._about)))


class Published(Page):
    """Another display, and the experiment's record for the sidebar, written by a thread of its own."""

    def __init__(self, inner: Display, **about: Any) -> None:
        super().__init__(lambda text: None, **about)
        self._inner = inner
        self._thread = ThreadPoolExecutor(1, "cambio_lab wall")
        self._writing: Future[None] | None = None

    def show(self, tally: Tally) -> None:
        self._inner.show(tally)
        if (self._writing is None or self._writing.done()) and self._due(tally):
            self._write(tally)

    def close(self, tally: Tally) -> None:
        self._inner.close(tally)
        self._write(tally)
        self._thread.shutdown()

    def _write(self, tally: Tally) -> None:
        self._writing = self._thread.submit(self._publish, describe(tally, **self._about))

    def _publish(self, record: Json) -> None:
        try:
            walls.publish(record)
        except OSError as error:  # the experiment goes on without the sidebar
            logger.warning("the sidebar is not told: %s", error)


def choose(progress: bool | Display, **about: Any) -> Display:
    """The display for where we are: a page in a kernel, a line elsewhere, nothing for ``False``.

    What shows anything is shown in JupyterLab's sidebar, too, if the experiment has an ``identity``.
    """
    if not progress:
        return Display()
    shown = progress if not isinstance(progress, bool) else _page(about) if _kernel() else Terminal()
    return Published(shown, **about) if about.get("identity") else shown


def _page(about: dict[str, Any]) -> Page:
    from IPython import display

    page: Any = display
    handle = page.display(page.HTML(""), display_id=True)
    return Page(lambda text: handle.update(page.HTML(text)), **about)


def _kernel() -> Any:
    """The running IPython kernel's shell, if we are in one; does not import IPython."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None
