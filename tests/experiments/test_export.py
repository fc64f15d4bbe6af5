"""A whole experiment in the files of other tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from cambio_lab.cli import main
from cambio_lab.errors import ConfigurationError
from cambio_lab.experiments import Experiment

from .conftest import BAD, GOOD, word_task

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


async def test_twenty_four_cells_as_an_inspect_log(experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    from inspect_ai.analysis import samples_df
    from inspect_ai.log import read_eval_log

    tasks = [word_task("one"), word_task("two"), word_task("three")]
    grid = experiment(tasks, models=[GOOD, BAD], settings=[{}, {"effort": "high"}], repeats=2)
    await grid.run(progress=False)
    path = tmp_path / "logs" / "grid.eval"
    path.parent.mkdir()
    await asyncio.to_thread(grid.export, path)
    log = await asyncio.to_thread(read_eval_log, str(path))
    assert log.samples is not None and log.results is not None
    assert len(log.samples) == 24 and log.results.total_samples == 24
    assert {sample.epoch for sample in log.samples} == {1, 2}
    assert log.results.scores[0].metrics["accuracy"].value == 0.5
    for sample in log.samples:
        (model,) = sample.model_usage
        assert sample.scores is not None and sample.scores["success"].value == ("C" if model == GOOD else "I")
        assert sample.metadata["task"] in ("one", "two", "three")
    assert set(log.stats.model_usage) == {GOOD, BAD}
    cost = sum(usage.total_cost or 0.0 for usage in log.stats.model_usage.values())
    assert cost == pytest.approx(grid.results["cost_usd"].sum())
    command = ["experiment", "export", str(grid.directory), str(tmp_path / "grid.parquet")]
    assert await asyncio.to_thread(main, command) == 0
    steps = pandas.read_parquet(tmp_path / "grid.parquet")
    assert len(steps) == grid.results["steps"].sum() and set(steps["model"]) == {GOOD, BAD}
    assert steps.groupby("model")["success"].all().to_dict() == {GOOD: True, BAD: False}
    assert set(zip(steps["task"], steps["repeat"], strict=True)) == {
        (t, r) for t in ("one", "two", "three") for r in (0, 1)
    }
    table = await asyncio.to_thread(samples_df, str(path.parent), quiet=True)
    assert len(table) == 24 and set(table["score_success"]) == {"C", "I"}


async def test_an_experiment_without_runs_says_so(experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no recorded runs yet"):
        experiment().export(tmp_path / "x.eval")
