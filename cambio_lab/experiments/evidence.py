"""What is kept so that an experiment's results come again without new runs: what checks read, and whole recordings.

A corrected check judges the same end states by what the earlier one read. A notebook that is recorded or replayed has
what came of every cell beside it; ``cambio-lab replay`` tells the kernel where. A recording is a folder,
``runs/<notebook>-experiment-<n>``: the table ``cells.jsonl`` (``cell_id``, ``digest``, ``python``, ``outcome``) and a
bundle for each cell. In a replay the real loop plays every bundle again and the verdicts are those of then, so that it
needs no desktop, no network and no key.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import platform
import random
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..desktop.files import FileContent
from ..errors import ActionError, BundleRefused, CambioError, RecordingMissing, ReplayDiverged
from ..recording import Contents, calls
from ..recording.calls import RecordingDesktop
from ..recording.run_file import unpack
from ..replay.recorded import ReplayDesktop
from . import live
from .engine import NO_VERDICT, Failure, Outcome
from .grid import Cell, Grid
from .ledger import CellRow, Ledger
from .live import Live, Observation, oracle_policy
from .scheduler import ExperimentStopped, Tally
from .task import Task, Verdict, comparable
from .wall import tally_of

if TYPE_CHECKING:
    from .experiment import Experiment

Json = dict[str, Any]
LARGEST = 500_000
"""Characters of one outcome's evidence; more is not kept, and its cell cannot be judged again."""


class EvidenceMissing(CambioError):
    """A check reads what the earlier one did not."""


class Witness:
    """Notes what a check reads of ``live``."""

    def __init__(self, task: Task, seen: Live) -> None:
        self._calls: list[Json] = []
        self._task, self._live = task, seen
        seen.desktop = RecordingDesktop(seen.desktop, self._note, itertools.count().__next__)

    async def _note(self, record: Json) -> None:
        self._calls.append(
            {name: record[name] for name in ("method", "arguments", "result", "error") if name in record}
        )

    def evidence(self) -> Json | None:
        """Return it as JSON; ``None`` when it is too large."""
        values = {name: value for name, value in self._live.values.items() if _plain(value)}
        kept = {"question": self._task.question, "values": values, "answers": self._live.answers, "calls": self._calls}
        return kept if len(json.dumps(kept)) <= LARGEST else None


class KeptDesktop(ReplayDesktop):
    """Answers a check with what an earlier one was answered, whatever the order; the last answer repeats."""

    def __init__(self, contents: Contents, calls: list[Json]) -> None:
        super().__init__(contents)
        self._kept: dict[str, list[Json]] = {}
        for call in calls:
            self._kept.setdefault(_key(call["method"], call["arguments"]), []).append(call)

    async def call(self, method: str, **arguments: Any) -> Any:
        return self._answer(method, arguments)

    def read_file(self, path: str) -> FileContent:
        async def read(_: FileContent) -> Any:
            yield self._answer("read_file", {"path": path})

        return FileContent(read)

    def _answer(self, method: str, arguments: Json) -> Any:
        answers = self._kept.get(_key(method, calls.encode_arguments(arguments)), [])
        if not answers:
            raise EvidenceMissing(f"The check reads what was not kept: {method} {str(arguments)[:200]}.")
        call = answers.pop(0) if len(answers) > 1 else answers[0]
        if "error" in call:
            raise calls.decode_error(call["error"])
        return calls.decode(call["result"], self.contents.find)


async def rejudge(task: Task, seed: int, outcome: Outcome, contents: Contents) -> Outcome | None:
    """Return the outcome that ``task``'s check gives now; ``None`` without evidence, or when more than it changed."""
    kept: Mapping[str, Any] | None = outcome.evidence
    if not kept or task.check is None or kept["question"] != task.question:
        return None
    seen = Live(None, KeptDesktop(contents, kept["calls"]), seed)
    seen.random, seen.values, seen.answers = random.Random(seed), dict(kept["values"]), list(kept["answers"])
    try:
        verdict = await judge(task, seen)
    except EvidenceMissing:
        return None
    failure: Failure = "limit" if outcome.failure == "limit" else "agent"
    return replace(
        outcome,
        success=verdict.success,
        score=verdict.score,
        reason=verdict.reason,
        failure=None if verdict.success else failure,
        error="" if verdict.success else verdict.reason or "The check says no.",
    )


async def judge(task: Task, seen: Live) -> Verdict:
    """The author's verdict. What the agent did not make (a missing file) and a failed ``assert`` are a no."""
    assert task.check is not None
    try:
        return Verdict.of(await live.call(task.check, seen))
    except AssertionError as error:
        return Verdict(False, 0.0, f"not so: {error}" if str(error) else "an assertion of the check failed")
    except ActionError as error:
        return Verdict(False, 0.0, error.message)


async def rescore(experiment: Experiment, ledger: Ledger) -> list[dict[str, Any]]:
    """Judge every finished cell again by the tasks' checks of now; see :meth:`Experiment.rescore`."""
    rows, changes, known = [], [], {row.cell_id: row.outcome for row in await ledger.cells()}
    for cell in experiment.grid:
        outcome = known.get(cell.cell_id)
        if outcome is None or not outcome.bundle:
            continue
        contents = await asyncio.to_thread(unpack, experiment.directory / "runs" / outcome.bundle)
        now = await rejudge(cell.task, cell.seed, outcome, contents)
        if now is not None:
            changes.append((now, cell.digest))
        said = {"before": outcome.success, "after": now.success if now else None, "reason": now.reason if now else ""}
        rows.append({"cell": cell.cell_id, "judged": now is not None, **said})
    await ledger.rescore(changes)
    return rows


async def check_tasks(experiment: Experiment, concurrency: int | None) -> list[dict[str, Any]]:
    """Try the checks on untouched and on solved desktops; see :meth:`Experiment.check_tasks`."""
    tasks = experiment.grid.tasks
    rows = {task.name: {"task": task.name, "ok": True, "untouched": "", "solved": ""} for task in tasks}
    trials = (("untouched", _idle, list(tasks)), ("solved", oracle_policy, [t for t in tasks if t.solution]))
    for what, policy, chosen in trials:
        if not chosen:
            continue
        with TemporaryDirectory() as folder:
            trial = type(experiment)(
                chosen,
                models={what: policy},
                repeats=1,
                seed=experiment.grid.seed,
                directory=folder,
                config=experiment.grid.config,
                lab=experiment.lab,
                make_provider=experiment.make_provider,
            )
            try:
                await trial.run(concurrency=concurrency, progress=False)
            except ExperimentStopped as stop:
                for task in chosen:
                    rows[task.name] |= {"ok": False, what: f"not tried: {stop.message}"}
            for cell in trial.cells:
                if (outcome := cell.outcome) is not None:
                    counted = outcome.failure not in NO_VERDICT
                    rows[cell.task][what] = f"{'yes' if outcome.success else 'no'}: {outcome.reason or outcome.error}"
                    right = counted and outcome.success == (what == "solved")
                    rows[cell.task]["ok"] = bool(rows[cell.task]["ok"]) and right
    return list(rows.values())


async def _idle(observation: Observation) -> str:
    return "I leave it as it is."


def _key(method: str, arguments: Json) -> str:
    return json.dumps([method, arguments], sort_keys=True, default=str)


def _plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


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
        await asyncio.to_thread(self._write, {cell.cell_id: cell.digest for cell in cells}, rows, runs)

    def _write(self, digests: Mapping[str, str], rows: Iterable[CellRow], runs: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        lines = []
        for outcome in (row.outcome for row in rows):
            if outcome is None or outcome.cell_id not in digests:
                continue
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
