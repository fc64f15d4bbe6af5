"""The ledger as tables, with honest numbers from few runs: intervals, not points.

pandas is imported on first use: ``pip install "cambio-lab[analysis]"``.

Sources: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927) for the interval
of a rate; M. Chen et al., "Evaluating Large Language Models Trained on Code" (2021, equation 1) for pass@k; the
bootstrap draws whole tasks, because repeats of one task resemble each other and are not independent evidence.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from math import comb, nan, sqrt
from operator import attrgetter
from pathlib import Path
from statistics import NormalDist
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import ConfigurationError
from ..recording import walls
from ..recording.rows import load_pandas
from .engine import EVIDENCE
from .ledger import CellRow

if TYPE_CHECKING:
    import pandas as pd

    from ..reports import Run

DRAWS = 10_000


class Interval(NamedTuple):
    """``low <= high``; both ``nan`` where there is no data."""

    low: float
    high: float


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a success rate, within 0 and 1; ``ValueError`` when the counts make no sense.

    Unlike the textbook's normal interval it stays honest at 0 of n and n of n and for small n.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Interval(nan, nan)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, z2 = successes / trials, z * z
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(low, high)


def pass_at_k(trials: int, successes: int, k: int) -> float:
    """The unbiased estimate of "at least one of ``k`` runs succeeds" from ``successes`` in ``trials``.

    ``nan`` when fewer than ``k`` runs were made: nothing can be said then.
    """
    if k < 1 or not 0 <= successes <= trials:
        raise ValueError(f"pass@{k} of {successes} successes in {trials} trials")
    if trials < k:
        return nan
    return 1.0 - comb(trials - successes, k) / comb(trials, k)


def mean_pass_at_k(outcomes: Sequence[Sequence[bool]], k: int) -> float:
    """pass@k averaged over tasks; ``outcomes`` has one sequence for each task. Tasks with fewer runs are left out."""
    values = [pass_at_k(len(runs), sum(runs), k) for runs in outcomes if len(runs) >= k]
    return sum(values) / len(values) if values else nan


def bootstrap(clusters: Sequence[Sequence[float]], confidence: float = 0.95, *, seed: int = 0) -> Interval:
    """Percentile interval of the mean of all values, drawing whole clusters (tasks) with replacement.

    The same ``seed`` gives the same interval. One cluster alone says nothing about other tasks: its values are drawn
    one by one instead.
    """
    filled = [np.asarray(values, dtype=float) for values in clusters if len(values)]
    if not filled:
        return Interval(nan, nan)
    if len(filled) == 1:
        filled = [np.asarray([value]) for value in filled[0]]
    totals = np.asarray([values.sum() for values in filled])
    sizes = np.asarray([values.size for values in filled])
    chosen = np.random.default_rng(seed).integers(0, len(filled), size=(DRAWS, len(filled)))
    means = totals[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def paired_difference(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> tuple[float, Interval]:
    """How much better ``first`` is than ``second``: the mean over tasks of the difference of means, and its interval.

    The n-th sequence of both belongs to the same task; tasks that one of them lacks are left out.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks cannot be paired with {len(second)}")
    differences = [
        float(np.mean(one)) - float(np.mean(other)) for one, other in zip(first, second, strict=True) if one and other
    ]
    if not differences:
        return nan, Interval(nan, nan)
    interval = bootstrap([[difference] for difference in differences])
    return float(np.mean(differences)), interval


def per_success(total: float, successes: int) -> float:
    """What one success costs when failures are paid for, too; infinite without a success."""
    return total / successes if successes else float("inf")


Row = dict[str, Any]
TOKENS = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "thinking_tokens",
)
COLUMNS = (
    *("task", "model", "setting", "repeat", "seed", "state", "counted", "success", "score", "failure", "reason"),
    *("error", "answer", "steps", "human_steps", *TOKENS, "requests", "cost_usd", "wall_seconds", "model_seconds"),
    *("desktop_seconds", "started_at", "attempts", "worker", "run_id", "run", "tags", "note"),
)


def rows(cells: Sequence[CellRow], runs: Path) -> list[dict[str, Any]]:
    """One plain row for each cell, those still open included; ``run`` is the run file's path."""
    said = walls.notes(runs.parent)
    table = []
    for cell in cells:
        note = said.get(cell.cell_id, {"tags": [], "note": ""})
        table.append(_row(cell, runs) | {"tags": ", ".join(note["tags"]), "note": note["note"]})
    return table


def _row(cell: CellRow, runs: Path) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= _values(cell, "task", "model", "setting", "repeat", "seed", "state", "attempts")
    outcome = cell.outcome
    row["counted"] = outcome is not None and outcome.failure in EVIDENCE
    if outcome is None:
        return row
    row |= _values(
        outcome, "failure", "reason", "error", "answer", "steps", "human_steps", "worker", "run_id", "started_at"
    )
    row["success"] = outcome.success if row["counted"] else None
    row["score"] = outcome.score if row["counted"] else None
    row |= _values(outcome.usage, *TOKENS, "requests", "cost_usd")
    seconds = _values(outcome, "wall_seconds", "model_seconds", "desktop_seconds")
    row |= {name: round(value, 4) for name, value in seconds.items()}
    row["run"] = str(runs / outcome.bundle) if outcome.bundle else None
    return row


def _values(source: object, *names: str) -> dict[str, Any]:
    return dict(zip(names, attrgetter(*names)(source), strict=True))


def write_csv(file: IO[str], table: Sequence[dict[str, Any]]) -> None:
    """Write :data:`COLUMNS` of each row."""
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(table)


def recorded_runs(experiment: str, cells: Sequence[CellRow], folder: Path) -> list[Run]:
    """Return the run of every cell that left one in ``folder``, with its outcome in ``run.result``."""
    from ..reports import Run
    from ..reports.run import Result

    several = len({(cell.model, cell.setting) for cell in cells}) > 1
    said = walls.notes(folder.parent)
    found = []
    for cell in cells:
        outcome = cell.outcome
        if outcome is None or not outcome.bundle:
            continue
        counted = outcome.failure in EVIDENCE
        run = Run.load(folder / outcome.bundle)
        run.result = Result(
            experiment=experiment,
            task=cell.task,
            setting=cell.setting,
            repeat=cell.repeat,
            success=outcome.success if counted else None,
            score=outcome.score if counted else None,
            failure=outcome.failure,
            reason=outcome.reason or outcome.error,
            sample_id=f"{cell.task}/{cell.model}/{cell.setting}" if several else cell.task,
            tags=tuple(said[cell.cell_id]["tags"]) if cell.cell_id in said else (),
        )
        found.append(run)
    return found


def export(experiment: str, cells: Sequence[CellRow], folder: Path, target: Path, format: str | None) -> None:
    """Write the run of every cell to one file. :class:`ConfigurationError` when there is none."""
    from ..reports import write

    if not (runs := recorded_runs(experiment, cells, folder)):
        raise ConfigurationError("The experiment has no recorded runs yet.")
    write(runs, target, format)


def frame(cells: Sequence[CellRow], runs: Path) -> pd.DataFrame:
    """The cells as a DataFrame of :data:`COLUMNS`."""
    pandas = load_pandas()
    table = pandas.DataFrame(rows(cells, runs), columns=list(COLUMNS))
    table["started_at"] = pandas.to_datetime(pandas.to_numeric(table["started_at"]), unit="s", utc=True)
    counts = (*TOKENS, "steps", "requests")
    kinds = {"success": "boolean", "counted": bool, "score": float, "cost_usd": float} | dict.fromkeys(counts, "Int64")
    kinds |= dict.fromkeys(("wall_seconds", "model_seconds", "desktop_seconds"), float)
    return table.astype(kinds)


def grouped(table: Sequence[Row], by: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Return the rows of each combination of the columns ``by``."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in table:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return groups


def summarise(table: Sequence[Row], by: Sequence[str] = ("model", "setting"), *, k: Sequence[int] = ()) -> pd.DataFrame:
    """One row for each group of ``by``: rate, intervals, pass@k, and what one success costs.

    ``low`` and ``high`` are Wilson's interval of the rate over all runs; ``task_low`` and ``task_high`` draw whole
    tasks (bootstrap) and answer "on other tasks like these?", which is wider when tasks differ. Runs that say nothing
    about the agent (infrastructure, task) are in ``not_counted``; their money is in ``cost_usd``.
    """
    pandas = load_pandas()
    wanted = tuple(k) or sorted({1, 1 + max((row["repeat"] for row in table), default=0)})
    groups = grouped([row for row in table if row["state"] != "open"], by)
    found = [dict(zip(by, names, strict=True)) | rates(groups[names], wanted) for names in sorted(groups)]
    return pandas.DataFrame(found).set_index(list(by)) if found else pandas.DataFrame()


def rates(runs: Sequence[Row], k: Sequence[int] = ()) -> dict[str, Any]:
    """Return the columns of :func:`summarise` for some rows; ``nan`` where nothing counts."""
    counted = [row for row in runs if row["counted"]]
    tasks = [[bool(row["success"]) for row in members] for members in grouped(counted, ["task"]).values()]
    good, trials = sum(map(sum, tasks)), len(counted)
    (low, high), (task_low, task_high) = wilson(good, trials), bootstrap(tasks)
    cost, wall = (sum(row[name] or 0.0 for row in runs) for name in ("cost_usd", "wall_seconds"))
    return {
        "runs": trials,
        "successes": good,
        "success_rate": good / trials if trials else nan,
        "low": low,
        "high": high,
        "task_low": task_low,
        "task_high": task_high,
        **{f"pass@{number}": mean_pass_at_k(tasks, number) for number in k},
        "mean_score": sum(row["score"] for row in counted) / trials if trials else nan,
        "mean_steps": sum(row["steps"] for row in counted) / trials if trials else nan,
        "cost_usd": cost,
        "cost_per_success": per_success(cost, good),
        "seconds_per_success": per_success(wall, good),
        "limits": sum(row["failure"] == "limit" for row in counted),
        "not_counted": len(runs) - trials,
    }


def difference(table: Sequence[Row], column: str, first: str, second: str) -> dict[str, Any]:
    """How much higher the success rate of ``first`` is than that of ``second`` (values of ``column``), task by task.

    ``separate`` says whether the interval excludes zero.
    """
    groups = grouped([row for row in table if row["counted"]], ("task", column))
    tasks = {task for task, _ in groups}
    one, other = (
        [[float(row["success"]) for row in groups.get((task, name), [])] for task in sorted(tasks)]
        for name in (first, second)
    )
    mean, interval = paired_difference(one, other)
    return {
        "difference": mean,
        "low": interval.low,
        "high": interval.high,
        "tasks": sum(bool(mine and theirs) for mine, theirs in zip(one, other, strict=True)),
        "separate": interval.low > 0 or interval.high < 0,
    }
