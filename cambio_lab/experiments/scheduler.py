"""Hands cells to an engine until all are done, a cap is reached or someone stops it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from ..errors import CambioError
from .engine import NO_VERDICT, AttemptLost, AttemptProgress, Engine, Job, Mark, Outcome
from .grid import Cell
from .ledger import Ledger
from .limits import Budget

if TYPE_CHECKING:
    from .wall import Display

logger = logging.getLogger(__name__)
TICK = 0.25
"""Seconds between looks at the world; a kernel's interrupt is seen no later."""
NOTE_SECONDS = 2.0
RETRY_SECONDS = 2.0
"""Pause before an infrastructure failure is tried again, doubled each time, at most a minute."""
HOPELESS = 6
"""This many failures of the infrastructure in a row for each slot, without one result, end the run with an error."""
SAME_FAULT = 3
"""This many cells in which ``setup`` or ``check`` raises the same exception end the run with an error."""


class ExperimentStopped(CambioError):
    """The experiment cannot go on; every finished cell is kept. The hint says what to do before running it again."""


@dataclass(slots=True)
class Tally:
    """What a progress bar shows: ``success`` of ``done`` cells; ``failed`` ones have no verdict."""

    total: int
    done: int = 0
    success: int = 0
    failed: int = 0
    running: int = 0
    spent_usd: float = 0.0
    spent_steps: int = 0
    seconds: float = 0.0
    left_seconds: float | None = None
    retries: int = 0
    slots: int = 0
    ended: str = ""
    """Why it ended: ``complete``, ``stopped``, or the cap that was reached; empty while it runs."""
    live: list[AttemptProgress] = field(default_factory=list)
    cells: dict[str, Mark] = field(default_factory=dict)
    """The whole grid by cell id, in its order."""


class Scheduler:
    """One call of ``run``. ``shown`` is told of changes a few times a second."""

    def __init__(self, engine: Engine, ledger: Ledger, budget: Budget, retries: int, shown: Display) -> None:
        self._engine, self._ledger, self._budget = engine, ledger, budget
        self._retries, self._shown = retries, shown
        self._queue: deque[Cell] = deque()
        self._later: list[tuple[float, Cell]] = []
        self._running: dict[asyncio.Task[Outcome], Job] = {}
        self._tries: Counter[str] = Counter()
        self._failures_in_a_row = 0
        self._task_faults: Counter[str] = Counter()
        self._last_note = 0.0
        self._finished_here = 0
        self._began = time.monotonic()
        self._noted: dict[str, tuple[float, int]] = {}
        """Attempt -> dollars and steps that the ledger has."""
        self._alive: dict[str, str] = {}
        self.stopping = False
        self.tally = Tally(0)

    async def run(self, cells: Iterable[Cell], tally: Tally, alive: Mapping[str, str]) -> Tally:
        """Run ``cells`` (those still open); ``tally`` counts the whole grid so far.

        ``alive`` maps cells to attempts that an earlier process started and that still run: they come first.

        Raises :class:`ExperimentStopped`. Cancelling it cancels what runs; nothing that ended is lost.
        """
        self._alive = dict(alive)
        self._queue = deque(sorted(cells, key=lambda cell: cell.cell_id not in self._alive))
        self.tally = tally
        watcher = asyncio.create_task(self._watch())
        try:
            while not self.tally.ended:
                await self._fill()
                if self._running:
                    await self._collect()
                elif self._later:
                    await asyncio.sleep(TICK)
                elif self.stopping:
                    self.tally.ended = "stopped"
                else:
                    self.tally.ended = (self._budget.reached or "max_cost_usd") if self._queue else "complete"
        finally:
            watcher.cancel()
            await self._abandon()
            await asyncio.gather(watcher, return_exceptions=True)
            self.tally.live = []
            self._refresh()
        return self.tally

    async def _fill(self) -> None:
        """Start attempts while there is room, money and a cell."""
        now = time.monotonic()
        ready = [cell for due, cell in self._later if due <= now]
        if ready:
            self._later = [(due, cell) for due, cell in self._later if due > now]
            self._queue.extendleft(ready)
        if self.stopping or self._budget.reached:
            self._later.clear()
            if self.stopping or self._budget.reached == "max_seconds":
                await self._abandon()
            return
        self.tally.slots = await self._engine.slots()
        while self._queue and len(self._running) < self.tally.slots:
            job = self._admit(self._queue[0])
            if job is None:
                return
            self._queue.popleft()
            self._alive.pop(job.cell.cell_id, None)
            await self._ledger.begin(job.attempt, job.cell.cell_id)
            self._running[asyncio.create_task(self._engine.run(job), name=job.attempt)] = job

    def _admit(self, cell: Cell) -> Job | None:
        """A job with an allowance of its own, or ``None`` while others hold what is left."""
        attempt, config, message = self._alive.get(cell.cell_id) or uuid4().hex, dict(cell.config), cell.task.message
        turns = 1 if isinstance(message, str) or callable(message) else len(message)
        allowance = self._budget.admit(
            attempt,
            cost_usd=float(config.get("max_cost_usd") or 0),
            steps=int(config.get("max_steps") or 0) * max(1, turns),
        )
        if allowance is None:
            return None
        if allowance.cost_usd:
            config["max_cost_usd"] = allowance.cost_usd
        return Job(attempt, cell, config, allowance.steps, allowance.short)

    async def _collect(self) -> None:
        """Wait a moment for attempts to end and settle those that did."""
        done, _ = await asyncio.wait(self._running, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            job = self._running[task]
            outcome = _outcome(task, job)
            await self._settle(job, outcome)
            del self._running[task]
            self._give_up_if_hopeless(outcome)

    async def _settle(self, job: Job, outcome: Outcome) -> None:
        cell = job.cell
        infrastructure = outcome.failure == "infrastructure"
        self._tries[cell.cell_id] += 1
        tries = self._tries[cell.cell_id]
        again = infrastructure and not outcome.fatal and tries <= self._retries
        cut_short = job.short and outcome.failure == "limit"  # by the experiment's cap: no result, the cell stays open
        counted = await self._ledger.finish(outcome, final=not (again or outcome.fatal or cut_short))
        cost, steps = self._noted.pop(job.attempt, (0.0, 0))
        self._budget.settle(job.attempt, cost_usd=max(outcome.usage.cost_usd, cost), steps=max(outcome.steps, steps))
        await self._engine.settled(outcome)
        self._failures_in_a_row = self._failures_in_a_row + 1 if infrastructure else 0
        if again:
            self.tally.retries += 1
            pause = min(RETRY_SECONDS * 2 ** (tries - 1), 60.0)
            self._later.append((time.monotonic() + pause, cell))
            logger.info("%s: %s; again in %.0f s", cell.cell_id, outcome.error, pause)
        elif counted:
            self._finished_here += 1
            self.tally.failed += outcome.failure in NO_VERDICT
            self.tally.done += outcome.failure not in NO_VERDICT
            self.tally.success += outcome.success
            if old := self.tally.cells.get(cell.cell_id):
                self.tally.cells[cell.cell_id] = old.ended(outcome)

    def _give_up_if_hopeless(self, outcome: Outcome) -> None:
        """Raise when going on would burn the grid for nothing."""
        if outcome.fatal:
            raise ExperimentStopped(
                outcome.error, hint="Every other cell would fail the same way. Fix it, then run the experiment again."
            )
        if outcome.failure == "task":
            fault = ":".join(outcome.error.split(":")[:2])  # "check: TypeError", whatever its text says
            self._task_faults[fault] += 1
            if self._task_faults[fault] >= SAME_FAULT:
                raise ExperimentStopped(
                    f"{outcome.error} (the same in {SAME_FAULT} cells; the last one is {outcome.cell_id})",
                    hint="Correct the task and run the experiment again: it repeats these cells and keeps the others.",
                )
        if self._failures_in_a_row >= HOPELESS * max(1, self.tally.slots):
            raise ExperimentStopped(
                f"{self._failures_in_a_row} attempts in a row failed before the agent was at fault: {outcome.error}",
                hint="Fix it (run cambio-lab doctor), then run the experiment again: it goes on where it was.",
            )

    async def _abandon(self) -> None:
        """End what runs; its cells stay open, what it spent stays on the books."""
        if not self._running:
            return
        for task in self._running:
            task.cancel()
        await asyncio.wait(self._running)
        for task, job in self._running.items():
            if not task.cancelled() and task.exception() is None:  # it ended just before
                await self._settle(job, task.result())
                continue
            cost, steps = self._noted.pop(job.attempt, (0.0, 0))
            self._budget.settle(job.attempt, cost_usd=cost, steps=steps)
            await self._ledger.lose(job.attempt, "stopped")
            self._queue.appendleft(job.cell)
        self._running.clear()

    async def _watch(self) -> None:
        """Look at what runs, tell the display, and note what attempts have spent so far."""
        while True:
            try:
                self.tally.live = await self._engine.progress(thumbnails=self._shown.thumbnails)
                if time.monotonic() - self._last_note >= NOTE_SECONDS:
                    self._last_note = time.monotonic()
                    await self._note()
            except (CambioError, OSError) as error:  # a worker that just died; its attempt will say so
                logger.warning("no progress to show: %s", error)
            self._refresh()
            await asyncio.sleep(TICK * 2)

    async def _note(self) -> None:
        for item in self.tally.live:
            used = item.cost_usd, item.steps
            if any(used) and used != self._noted.get(item.attempt):
                self._noted[item.attempt] = used
                await self._ledger.note(item.attempt, steps=item.steps, cost_usd=item.cost_usd)

    def _refresh(self) -> None:
        tally = self.tally
        tally.running = len(self._running)
        tally.seconds = time.monotonic() - self._began
        tally.spent_usd = self._budget.spent_usd + sum(item.cost_usd for item in tally.live)
        tally.spent_steps = self._budget.spent_steps + sum(item.steps for item in tally.live)
        left = tally.total - tally.done - tally.failed
        tally.left_seconds = tally.seconds / self._finished_here * left if self._finished_here else None
        self._shown.show(tally)


def _outcome(task: asyncio.Task[Outcome], job: Job) -> Outcome:
    """The attempt's own outcome, or what its loss means; a mistake of ours is raised, never hidden in a table."""
    try:
        return task.result()
    except asyncio.CancelledError:
        error = "the attempt was cancelled"
    except AttemptLost as lost:
        error = lost.describe()
    return Outcome(job.attempt, job.cell.cell_id, failure="infrastructure", error=error, started_at=time.time())


async def recover(engine: Engine, ledger: Ledger) -> dict[str, str]:
    """Settle attempts that a killed process left: count what finished unseen, charge and reopen the rest.

    Returns the attempts that still run on a worker, by cell: they are gone on with.
    """
    running = await ledger.running()
    outcomes, alive = await engine.recover(running)
    for outcome in outcomes:
        await ledger.finish(outcome, final=outcome.failure != "infrastructure" and not outcome.fatal)
        await engine.settled(outcome)
    for attempt in running:  # no effect on those that were just finished
        if attempt.attempt not in alive:
            await ledger.lose(attempt.attempt, "the process that ran it died")
    return {attempt.cell_id: attempt.attempt for attempt in running if attempt.attempt in alive}
