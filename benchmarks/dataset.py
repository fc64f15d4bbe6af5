"""Time and size of a dataset: ``python -m benchmarks.dataset [--steps 10000]``, from the shipped recordings.

Each run's screenshots get bytes of their own, so that no two runs share one, as in real recordings.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import resource
import tempfile
import time
from pathlib import Path

import datasets
import duckdb

from cambio_lab.recording import Contents
from cambio_lab.reports import Run, to_dataset

RECORDINGS = sorted((Path(__file__).resolve().parents[1] / "notebooks" / "runs").glob("*.cambio"))


def varied(contents: Contents, number: int) -> Run:
    """Return the run with other bytes after the end of each screenshot, which readers of images ignore."""

    def find(digest: str) -> bytes | None:
        data = contents.find(digest)
        return data and data + number.to_bytes(4, "big")

    return Run(dataclasses.replace(contents, find=find))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    wanted = parser.parse_args().steps
    loaded = itertools.cycle([Run.load(path).contents for path in RECORDINGS])
    runs: list[Run] = []
    steps = 0
    while steps < wanted:
        runs.append(varied(next(loaded), len(runs)))
        steps += len(runs[-1].rows)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path = to_dataset(runs, Path(folder) / "steps.parquet")
        seconds, size = time.perf_counter() - began, path.stat().st_size
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        began = time.perf_counter()
        query = f"select count(*), count(distinct sha256(screenshot_after.bytes)) from '{path}'"
        found = duckdb.connect().execute(query).fetchone()
        duck = time.perf_counter() - began
        began = time.perf_counter()
        read = datasets.Dataset.from_parquet(str(path), cache_dir=folder)
        loading, image = time.perf_counter() - began, read[0]["screenshot_after"]
        print(f"DuckDB {found} in {duck:.1f} s; datasets {len(read)} rows in {loading:.1f} s, {image.size}")
    print(f"{steps} steps of {len(runs)} runs: {seconds:.1f} s, {size / 1e6:.0f} MB, at most {memory:.0f} MB of memory")


if __name__ == "__main__":
    main()
