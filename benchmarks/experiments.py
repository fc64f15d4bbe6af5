"""What experiments cost: scheduling per run, a whole run on instant parts, Dask's scaling, a desktop's memory.

``python -m benchmarks.experiments [scheduling] [runs] [dask] [memory]``; without names: the first three.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cambio_lab.events import Usage
from cambio_lab.experiments import Experiment
from cambio_lab.experiments.engine import AttemptProgress, Job, Outcome, Plan
from tests.experiments.conftest import GOOD, word_task, write_word
from tests.experiments.instant import make_instant
from tests.messages_api import MessagesApi

ROOT = str(Path(__file__).resolve().parents[1])
ROUNDS = 3


class NothingToDo:
    """An engine whose attempts are over at once: what is left is the scheduling itself."""

    name = "nothing"

    async def start(self, plan: Plan) -> None:
        """Ready."""

    async def slots(self) -> int:
        return 8

    async def recover(self, attempts: Sequence[AttemptProgress]) -> tuple[list[Outcome], set[str]]:
        return [], set()

    async def run(self, job: Job) -> Outcome:
        await asyncio.sleep(0)
        usage = Usage(input_tokens=1000, output_tokens=50, requests=3, cost_usd=0.001)
        return Outcome(job.attempt, job.cell.cell_id, success=True, score=1.0, usage=usage, steps=3)

    async def settled(self, outcome: Outcome) -> None:
        """Nothing kept."""

    async def progress(self, *, thumbnails: bool) -> list[AttemptProgress]:
        return []

    async def stop(self) -> None:
        """Nothing runs."""


def grid(folder: str, tasks: int, repeats: int, **options: Any) -> Experiment:
    names = [word_task(f"word {number}") for number in range(tasks)]
    return Experiment(names, models=[GOOD], repeats=repeats, directory=folder, make_provider=make_instant, **options)


async def scheduling() -> None:
    """Milliseconds of scheduling per run as the grid grows; the ledger is on disk after each."""
    print(f"{'cells':>6} {'ms/run':>8} {'resume ms':>10} {'results ms':>11}   (median of {ROUNDS})")
    for tasks, repeats in ((10, 20), (10, 100), (50, 100)):
        costs, resumes, tables = [], [], []
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                made = grid(folder, tasks, repeats)
                began = time.perf_counter()
                tally = await made.run(engine=NothingToDo(), progress=False)
                costs.append((time.perf_counter() - began) / tally.done * 1000)
                began = time.perf_counter()
                await grid(folder, tasks, repeats).run(engine=NothingToDo(), progress=False)
                resumes.append((time.perf_counter() - began) * 1000)
                began = time.perf_counter()
                assert len(made.results) == tasks * repeats
                tables.append((time.perf_counter() - began) * 1000)
        print(f"{tasks * repeats:6} {_median(costs):8.2f} {_median(resumes):10.1f} {_median(tables):11.1f}")


async def runs(count: int = 200) -> None:
    """Whole runs (session, agent, SDK over HTTP, store, bundle), instant desktops, instant model."""
    with MessagesApi(policy=write_word) as api, tempfile.TemporaryDirectory() as folder:
        os.environ.update(api.environment)
        await grid(folder, 1, 4, name="warm").run(concurrency=4, progress=False)
        for concurrency in (1, 8):
            made = grid(folder, 1, count, name=f"c{concurrency}")
            began = time.perf_counter()
            tally = await made.run(concurrency=concurrency, progress=False)
            each = (time.perf_counter() - began) / count * 1000
            assert tally.success == count and not api.refusals
            print(f"{count} whole runs, {concurrency} at once: {each:.0f} ms each, the stand-in service included")


async def dask(workers: int = 4, each: int = 12, delay: float = 4.0) -> None:
    """Throughput of ``workers`` workers as a multiple of one's: instant desktops, a model that sleeps."""
    from distributed import Client, LocalCluster

    os.environ["PYTHONPATH"] = ROOT
    rates = {}
    with MessagesApi(policy=write_word, delay=delay) as api:
        os.environ.update(api.environment)
        for count in (1, workers):
            options = {"n_workers": count, "threads_per_worker": 2, "processes": True, "dashboard_address": None}
            with LocalCluster(**options) as cluster, tempfile.TemporaryDirectory() as folder:
                async with Client(cluster.scheduler_address, asynchronous=True) as client:
                    warm = grid(folder, 1, 4 * count, name="warm")
                    await warm.run(engine=client, progress=False)
                    made = grid(folder, 1, each * count, name="timed")
                    tally = await made.run(engine=client, progress=False)
                    assert tally.success == each * count
                    rates[count] = _throughput(made)
                    print(f"{count} workers: {rates[count]:.3f} runs/s ({each * count} runs)")
    print(f"{workers} workers: {rates[workers] / rates[1]:.2f} x one")


def _throughput(made: Experiment) -> float:
    """Runs per second from the first start to the last end; the cluster's own start and check are left out."""
    outcomes = [cell.outcome for cell in made.cells if cell.outcome]
    began = min(outcome.started_at for outcome in outcomes)
    return len(outcomes) / (max(outcome.started_at + outcome.wall_seconds for outcome in outcomes) - began)


async def memory() -> None:
    """Memory of one Docker desktop: at rest, and with a browser on a page and an editor."""
    from cambio_lab.desktop import make_provider
    from cambio_lab.desktop.provider import DesktopOptions
    from cambio_lab.settings import Settings

    provider = await make_provider(Settings(desktop="docker", pool_size=0), server_id="benchmark-experiments")
    desktop = await provider.acquire("memory", DesktopOptions())
    try:
        await asyncio.sleep(3)
        print(f"a desktop at rest: {await _used(desktop)} MB")
        page = "data:text/html,<h1>A page</h1>" + "<p>words" * 200
        for program in (f"firefox-esr '{page}'", "mousepad"):
            await desktop.execute(["bash", "-c", f"setsid nohup {program} >/dev/null 2>&1 </dev/null &"])
        await asyncio.sleep(15)
        print(f"with Firefox and an editor: {await _used(desktop)} MB")
    finally:
        await desktop.close()
        await provider.stop()


async def _used(desktop: Any) -> int:
    """Anonymous memory and buffers of everything in the container, in megabytes."""
    script = "cat /sys/fs/cgroup/memory/memory.stat /sys/fs/cgroup/memory.stat 2>/dev/null"
    _, out, _ = await desktop.execute(["bash", "-c", script])
    values = dict(line.split() for line in out.decode().splitlines() if len(line.split()) == 2)
    keys = ("total_rss", "total_shmem") if "total_rss" in values else ("anon", "shmem")
    return sum(int(values.get(key, 0)) for key in keys) // 1024**2


def _median(values: list[float]) -> float:
    return statistics.median(values)


async def main() -> None:
    parts = {"scheduling": scheduling, "runs": runs, "dask": dask, "memory": memory}
    for name in sys.argv[1:] or ["scheduling", "runs", "dask"]:
        print(f"-- {name}")
        await parts[name]()


if __name__ == "__main__":
    asyncio.run(main())
