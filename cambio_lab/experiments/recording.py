"""Experiments of a notebook that is recorded or replayed: what came of every cell, kept beside the notebook.

``cambio-lab replay`` tells the kernel where. A recording is a folder, ``runs/<notebook>-experiment-<n>``: the table
``cells.jsonl`` (``cell_id``, ``digest``, ``python``, ``outcome``) and a bundle for each cell. In a replay the real loop
plays every bundle again and the verdicts are those of then, so that it needs no desktop, no network and no key.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import platform
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import BundleRefused, RecordingMissing, ReplayDiverged
from .fingerprint import comparable
from .grid import Cell, Grid
from .ledger import CellRow, Ledger
from .outcome import Outcome
from .scheduler import Tally
from .wall import tally_of

FOLDER, MODE = "CAMBIO_LAB_RECORDINGS", "CAMBIO_LAB_RECORD"
"""Path and first part of the name of a notebook's recordings; ``all`` records them, ``none`` replays them."""
CELLS = "cells.jsonl"
PYTHON = ".".join(platform.python_version_tuple()[:2])
_numbers = itertools.count(1)


class Recording:
    """One experiment's recording. ``replays`` says that nothing is to be run."""

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder = folder
        self.replays = mode == "none" or (mode == "once" and folder.is_dir())

    @classmethod
    def bound(cls) -> Recording | None:
        """The next one of this kernel's notebook, if the notebook is recorded or replayed."""
        prefix = os.environ.get(FOLDER)
        if not prefix:
            return None
        return cls(Path(f"{prefix}-experiment-{next(_numbers)}"), os.environ.get(MODE, "once"))

    async def keep(self, cells: Iterable[Cell], rows: Iterable[CellRow], runs: Path) -> None:
        """Write what came of the cells that are done; names of machines stay out."""
        digests = {cell.cell_id: cell.digest for cell in cells}
        done = [row.outcome for row in rows if row.outcome is not None and row.cell_id in digests]
        await asyncio.to_thread(self._write, done, digests, runs)

    def _write(self, outcomes: Sequence[Outcome], digests: dict[str, str], runs: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        lines = []
        for outcome in outcomes:
            known = {name: value for name, value in outcome.environment.items() if name != "host"}
            told = replace(outcome, worker="", environment=known).to_json()
            line = {"cell_id": outcome.cell_id, "digest": digests[outcome.cell_id], "python": PYTHON, "outcome": told}
            lines.append(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
            if outcome.bundle:
                shutil.copy(runs / outcome.bundle, self.folder / outcome.bundle)
        (self.folder / CELLS).write_text("".join(lines), encoding="utf-8")

    async def replay(self, ledger: Ledger, grid: Grid, runs: Path) -> Tally:
        """Play the recorded runs again and enter what came of them; no cell is run.

        Raises :class:`RecordingMissing` and :class:`ReplayDiverged`, the latter also when the grid asks for what the
        recording does not have.
        """
        await asyncio.to_thread(runs.mkdir, exist_ok=True)
        recorded = await asyncio.to_thread(self._read)
        for cell in grid:
            line = recorded.get(cell.cell_id)
            # A task's digest covers its compiled code, which another Python compiles differently.
            same_kind = line is not None and line["python"] == PYTHON and comparable(line["digest"], cell.digest)
            if line is None or (same_kind and line["digest"] != cell.digest):
                raise ReplayDiverged(f"the experiment now asks something that the recording did not: {cell.cell_id}")
            outcome = Outcome.from_json(line["outcome"])
            if outcome.bundle:
                await self._play(outcome, runs)
            await ledger.finish(outcome, final=True)
        tally = tally_of(grid, await ledger.cells())
        tally.spent_usd, tally.spent_steps = await ledger.spent()
        tally.ended = "complete"
        return tally

    async def _play(self, outcome: Outcome, runs: Path) -> None:
        from ..reports import Run

        source = self.folder / Path(outcome.bundle).name
        if source.name != outcome.bundle:
            raise BundleRefused(f"{outcome.cell_id} names a file that lies elsewhere")
        run = await asyncio.to_thread(Run.load, source)
        if not (await run.replay()).identical:
            raise ReplayDiverged(f"{outcome.cell_id} does not come out the same")
        await asyncio.to_thread(shutil.copy, source, runs / outcome.bundle)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            lines = (self.folder / CELLS).read_text(encoding="utf-8").splitlines()
        except OSError:
            raise RecordingMissing(
                f"There is no recording {self.folder.name}.", hint="Record the notebook: cambio-lab replay --record."
            ) from None
        found = [json.loads(line) for line in lines]
        return {line["cell_id"]: line for line in found}
