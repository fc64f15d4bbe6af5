"""``python -m tests.experiments.driver FOLDER REPEATS [ADDRESS]``: an experiment in a process that may be killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from distributed import Client

from cambio_lab.experiments import Experiment

from .conftest import GOOD, word_task
from .instant import make_instant


def build(folder: Path, repeats: int) -> Experiment:
    return Experiment(
        [word_task()], models=[GOOD], repeats=repeats, directory=folder, make_provider=make_instant, name="killed"
    )


async def main() -> None:
    folder, repeats, *address = sys.argv[1:]
    experiment = build(Path(folder), int(repeats))
    if not address:
        await experiment.run(concurrency=2, progress=False)
        return
    async with Client(address[0], asynchronous=True) as client:
        await experiment.run(engine=client, progress=False)


if __name__ == "__main__":
    asyncio.run(main())
