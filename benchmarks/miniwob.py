"""Every page of MiniWoB++ through the whole stack without a key: the random and the oracle baseline.

``python -m benchmarks.miniwob [FOLDER] [--tasks a,b] [--desktop local] [--concurrency N]``. The oracle follows the
scripted solvers of the tests where a page has one and gives up elsewhere. The table is FOLDER/miniwob/table.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import replace
from pathlib import Path

from cambio_lab.experiments import Experiment, benchmark
from cambio_lab.experiments.results import rows
from tests.experiments.miniwob_solvers import SOLVERS, solution


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/bench-miniwob"))
    parser.add_argument("--tasks", help="names, separated by commas")
    parser.add_argument("--desktop", default="local")
    parser.add_argument("--concurrency", type=int, default=4)
    given = parser.parse_args()
    tasks = [
        replace(task, solution=solution(SOLVERS[task.name]) if task.name in SOLVERS else None)
        for task in benchmark("miniwob", given.tasks.split(",") if given.tasks else None)
    ]
    experiment = Experiment(
        tasks,
        models=["random", "oracle"],
        repeats=1,
        name="miniwob",
        directory=given.folder,
        lab={"desktop": given.desktop},
    )
    began = time.monotonic()
    tally = await experiment.run(concurrency=given.concurrency)
    minutes = (time.monotonic() - began) / 60
    table = rows(experiment.cells, experiment.directory / "runs")
    by = {(row["task"], row["model"]): row for row in table}
    lines = ["| Task | random | oracle | seconds |", "|---|---|---|---|"]
    for task in tasks:
        found = [by[task.name, model] for model in ("random", "oracle")]
        words = [row["reason"] if row["counted"] else f"no verdict: {row['error']}" for row in found]
        if task.name not in SOLVERS:
            words[1] = "no solver"
        lines.append(f"| {task.name} | {words[0]} | {words[1]} | {found[0]['wall_seconds'] or 0:.1f} |")
    for model in ("random", "oracle"):
        mine = [row for row in table if row["model"] == model and (model == "random" or row["task"] in SOLVERS)]
        won, score = sum(bool(row["success"]) for row in mine), sum(row["score"] or 0 for row in mine)
        lines.append(f"\n{model}: {won} of {len(mine)} tasks won, mean score {score / max(1, len(mine)):.3f}")
    verdicts = sum(row["counted"] for row in table)
    lines.append(
        f"\n{verdicts} of {len(table)} runs have a verdict; {minutes:.1f} minutes, {given.concurrency} at once."
    )
    path = experiment.directory / "table.md"
    path.write_text("\n".join(lines) + "\n")
    print(f"{path}: {lines[-1].strip()}")
    return 0 if tally.failed == 0 and verdicts == len(table) else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
