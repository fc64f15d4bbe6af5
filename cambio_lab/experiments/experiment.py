"""Task x model x setting x repeat, run to the end however often it is interrupted."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..agent.options import AgentOptions
from ..errors import ConfigurationError
from ..recording import walls
from ..sessions.config import SessionConfig
from ..store import FILE_NAME, Store
from . import evidence, report, results, wall
from .attempt import LocalEngine
from .engine import Engine, Plan
from .evidence import Recording
from .grid import Grid, Models, cell_id, lab_settings, name_models, name_settings
from .ledger import CellRow, Ledger, load_cells, open_row
from .limits import Budget
from .live import Policy
from .scheduler import Scheduler, Tally, recover
from .task import Task

if TYPE_CHECKING:
    import pandas as pd

    from ..reports import Run

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")
UNATTENDED = {"approval": "never"}
"""No person approves calls in an experiment; a setting or task can override this."""


class Experiment:
    """A grid of runs with a folder of its own, ``directory/name``: the ledger and one recorded run for each cell.

    ``tasks`` are a list or a :func:`benchmark`; ``models`` are names, policies (:mod:`.live`) or a mapping of both.
    ``settings`` are named changes of the session's configuration (a dict, or a list that is named after its content),
    ``config`` is what all cells share, ``lab`` overrides :class:`cambio_lab.settings.Settings` for these runs
    (``{"desktop": "docker", "image": "mine"}``). Caps count money, steps and the wall time of one ``run``.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        models: Sequence[str | Policy] | Models,
        settings: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]] | None = None,
        repeats: int = 5,
        seed: int = 1,
        name: str = "experiment",
        directory: str | Path = "experiments",
        config: Mapping[str, Any] | None = None,
        lab: Mapping[str, Any] | None = None,
        max_cost_usd: float | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        retries: int = 2,
        make_provider: Any = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is no name for an experiment.", hint="Use letters, digits and . _ -")
        shared = {**UNATTENDED, **(config or {})}
        self.grid = Grid(list(tasks), name_models(models), name_settings(settings), repeats, seed, shared)
        self.name = name
        self.source = tasks
        self.directory = Path(directory) / name
        self.caps: dict[str, Any] = {"max_cost_usd": max_cost_usd, "max_steps": max_steps, "max_seconds": max_seconds}
        self.retries = retries
        self.lab = dict(lab or {})
        self.settings = lab_settings(self.lab)
        self._check()
        self._tally = Tally(len(self.grid))
        self.make_provider = make_provider
        self._recording = Recording.bound()
        self._scheduler: Scheduler | None = None
        self._task: asyncio.Task[Tally] | None = None

    @classmethod
    def from_inspect(cls, task: Any, **options: Any) -> Experiment:
        """The samples of an Inspect task as tasks: input, files, set-up and scorers; the solver is ours."""
        from ..interop.inspect_registry import tasks

        return cls([Task(**one) for one in tasks(task)], **options)

    async def run(
        self, *, concurrency: int | None = None, engine: Any = None, progress: bool | wall.Display = True
    ) -> Tally:
        """Run every cell that is not done yet; run it again after any interruption and it goes on.

        ``engine`` is ``None`` (this machine), a ``dask.distributed.Client``, or an :class:`Engine`. ``concurrency``
        is how many cells run at once; ``None`` takes what memory and cores (or the workers) allow.
        Raises :class:`~cambio_lab.experiments.scheduler.ExperimentStopped` when going on would be in vain.
        """
        if self._scheduler is not None:
            raise ConfigurationError("This experiment is running already.", hint="Stop it first: experiment.stop().")
        recording = self._recording
        async with self._store() as ledger:  # held by this process alone; another is named in the error
            await ledger.prepare(self.grid)
            # The output of a recorded notebook is the same whenever it is replayed, so it has no identity.
            identity = "" if recording else await self._identity(ledger)
            shown = wall.choose(progress, identity=identity, name=self.name, directory=self.directory)
            try:
                if recording and recording.replays:
                    self._tally = await recording.replay(ledger, self.grid, self._runs)
                    return self._tally
                tally = await self._schedule(choose_engine(engine), ledger, shown, concurrency)
                if recording:
                    await recording.keep(self.grid, await ledger.cells(), self._runs)
                return tally
            finally:
                shown.close(self.tally)

    def start(self, **options: Any) -> asyncio.Task[Tally]:
        """:meth:`run` in the background: the cell ends at once, and :meth:`stop` works from the next one."""
        if self._task is not None and not self._task.done():
            raise ConfigurationError("This experiment is running already.", hint="Stop it first: experiment.stop().")
        self._task = asyncio.create_task(self.run(**options), name=f"experiment {self.name}")
        return self._task

    def stop(self) -> None:
        """End what runs now and start nothing more; finished cells are kept, ``run`` goes on from there."""
        if self._scheduler is not None:
            self._scheduler.stopping = True

    @property
    def tally(self) -> Tally:
        """Where the running call of ``run`` is, or how the last one ended."""
        return self._scheduler.tally if self._scheduler is not None else self._tally

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called and the run has not ended yet."""
        return self._scheduler is not None and self._scheduler.stopping

    @property
    def _runs(self) -> Path:
        return self.directory / "runs"

    async def _schedule(self, engine: Engine, ledger: Ledger, shown: wall.Display, concurrency: int | None) -> Tally:
        self._runs.mkdir(exist_ok=True)
        plan = Plan(
            experiment_id=await self._identity(ledger),
            directory=self.directory,
            settings=self.settings,
            lab=self.lab,
            store=ledger.store,
            models=self.grid.model_ids,
            wanted=concurrency,
            make_provider=self.make_provider,
        )
        try:
            await engine.start(plan)
            alive = await recover(engine, ledger)
            await ledger.forget(failed_only=True)  # a new call is a new chance for what the infrastructure spoiled
            cells = {cell.cell_id: cell for cell in self.grid}
            known = [row for row in await ledger.cells() if row.cell_id in cells]
            spent_usd, spent_steps = await ledger.spent()
            budget = Budget(**self.caps, spent_usd=spent_usd, spent_steps=spent_steps)
            scheduler = self._scheduler = Scheduler(engine, ledger, budget, self.retries, shown)
            try:
                still_open = [cells[row.cell_id] for row in known if row.state == "open"]
                return await scheduler.run(still_open, wall.tally_of(self.grid, known), alive)
            finally:
                self._tally = scheduler.tally
        finally:
            self._scheduler = None
            await engine.stop()

    async def _identity(self, ledger: Ledger) -> str:
        facts = await ledger.facts()
        return facts.get("id") or (await ledger.facts(id=uuid4().hex, name=self.name))["id"]

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Ledger]:
        store = await Store.open(self.directory)
        try:
            yield Ledger(store)
        finally:
            await store.close()

    def _check(self) -> None:
        """Refuse a grid that no session would take, before anything is spent: models, limits, names of settings."""
        for cell in {(cell.task.name, cell.model, cell.setting): cell for cell in self.grid}.values():
            AgentOptions.from_settings(self.settings, SessionConfig.parse(cell.config).given())

    # What came of it

    @property
    def cells(self) -> list[CellRow]:
        """Every cell as it stands, also while the experiment runs here or elsewhere."""
        found = load_cells(self.directory) if (self.directory / FILE_NAME).is_file() else []
        return found or [open_row(cell) for cell in self.grid]

    @property
    def results(self) -> pd.DataFrame:
        """One row for each cell; ``docs/experiments.md`` lists the columns."""
        return results.frame(self.cells, self._runs)

    def summary(self, by: Sequence[str] = ("model", "setting"), *, k: Sequence[int] = ()) -> pd.DataFrame:
        """Success rate with intervals, pass@k, cost and time per success, for each group of ``by``."""
        return results.summarise(results.rows(self.cells, self._runs), by, k=k)

    def difference(self, column: str, first: str, second: str) -> dict[str, Any]:
        """The difference of two success rates, paired by task, with its interval."""
        return results.difference(results.rows(self.cells, self._runs), column, first, second)

    def plot(self, kind: str = "success") -> Any:
        """A matplotlib figure: ``success`` (rates with intervals), ``tasks`` (task x model) or ``cost``."""
        if kind not in report.KINDS:
            raise ConfigurationError(f"There is no plot {kind!r}.", hint=f"Choose {', '.join(report.KINDS)}.")
        return report.success_rates(self.summary()) if kind == "success" else report.KINDS[kind](self.results)

    def open(self, task: str, model: str, setting: str = "default", repeat: int = 0) -> Run:
        """The recorded run of a cell: read it, replay it, compare it with another, fork it."""
        from ..reports import Run

        wanted = cell_id(task, model, setting, repeat)
        for cell in self.cells:
            if cell.cell_id == wanted and cell.outcome is not None and cell.outcome.bundle:
                return Run.load(self._runs / cell.outcome.bundle)
        raise ConfigurationError(f"There is no recorded run of {wanted!r}.", hint="See experiment.results.")

    def runs(self) -> list[Run]:
        """Return the recorded run of every cell that has one, with its outcome in ``run.result``."""
        return results.recorded_runs(self.directory.name, self.cells, self._runs)

    def export(self, path: str | Path, format: str | None = None) -> Path:
        """Write all recorded runs to one file, such as ``x.eval`` or ``x.parquet``; see docs/runs.md."""
        results.export(self.directory.name, self.cells, self._runs, Path(path), format)
        return Path(path)

    def report(self, path: str | Path | None = None) -> Path:
        """Write one self-contained HTML page (``report.html`` in :attr:`directory`).

        ``results.csv`` is written beside it, and ``results.parquet`` where pandas and pyarrow are installed.
        """
        return report.write(self, Path(path) if path else self.directory / "report.html")

    async def rescore(self) -> list[dict[str, Any]]:
        """Judge kept end states by the checks of now, without new runs; a row for each cell, ``judged`` if it could."""
        async with self._store() as ledger:
            return await evidence.rescore(self, ledger)

    async def check_tasks(self, *, concurrency: int | None = None) -> list[dict[str, Any]]:
        """Try each check before money is spent: no on the untouched desktop, yes on the reference solution's."""
        return await evidence.check_tasks(self, concurrency)

    def annotate(
        self, task: str, model: str, setting: str = "default", repeat: int = 0, *, tags: Any = None, note: Any = None
    ) -> None:
        """Tag a cell (a list of words), or note something; both are columns of :attr:`results` and in the sidebar."""
        cell = cell_id(task, model, setting, repeat)
        if cell not in {row.cell_id for row in self.cells}:
            raise ConfigurationError(f"There is no cell {cell!r}.", hint="See experiment.results.")
        walls.annotate(self.directory, cell, tags, note)

    async def forget(self, task: str | None = None) -> int:
        """Open finished cells again (all, or those of one task); what was spent stays on the books. How many."""
        async with self._store() as ledger:
            return await ledger.forget(task=task)

    def __len__(self) -> int:
        return len(self.grid)

    def __repr__(self) -> str:
        return f"<Experiment {self.name}: {self.grid!r}; {wall.words(wall.tally_of(self.grid, self.cells))}>"

    def _repr_html_(self) -> str:
        return wall.as_html(
            wall.describe(wall.tally_of(self.grid, self.cells), name=self.name, directory=self.directory)
        )


def choose_engine(engine: Any) -> Engine:
    """An engine for what the user gave: ``None``, a ``dask.distributed.Client``, or an engine."""
    if engine is None:
        return LocalEngine()
    distributed = sys.modules.get("distributed")  # who holds a client has imported it
    if distributed is not None and isinstance(engine, distributed.Client):
        from .dask import DaskEngine

        return DaskEngine(engine)
    if isinstance(engine, Engine):
        return engine
    raise ConfigurationError(
        f"{type(engine).__name__} is no engine.", hint="Give a dask.distributed.Client, or None for this machine."
    )
