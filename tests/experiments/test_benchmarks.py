"""Benchmarks: the table, filters, and those of other packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cambio_lab import benchmark, benchmarks
from cambio_lab.errors import ConfigurationError
from cambio_lab.experiments import Benchmark, Benchmarks, Experiment, Task, miniwob
from cambio_lab.experiments.suite import TASKS

MINE = Benchmark(
    name="mine",
    title="<b>Mine</b>",
    version="1",
    load=lambda split: [Task(f"{split} one", "Do it.", tags=("easy",)), Task(f"{split} two", "Do more.")],
    metric="yes or no",
    licence="MIT",
    citation="me",
    splits=("dev", "test"),
)


def test_the_table_says_what_there_is() -> None:
    found = {one.name: one for one in benchmarks()}
    assert list(found["cambio-basics"]) == list(TASKS)
    pages = found["miniwob"]
    assert len(pages) >= 120 and pages.licence == "MIT" and pages.metric and pages.differences and pages.citation
    assert "miniwob" in repr(benchmarks()) and "130 tasks" in benchmarks()._repr_html_()
    assert all(task.check and task.setup for task in pages)


def test_filters() -> None:
    assert [task.name for task in benchmark("miniwob", ["enter-date", "click-button"])] == [
        "click-button",
        "enter-date",
    ]
    assert {task.name.partition("-")[0] for task in benchmark("miniwob").filter(tags=["email"])} == {"email"}
    assert [task.name for task in MINE.filter(split="test", tags=["easy"])] == ["test one"]
    wrongs: tuple[dict[str, Any], ...] = ({"names": ["nothing"]}, {"tags": ["hard"]}, {"split": "train"})
    for wrong in wrongs:
        with pytest.raises(ConfigurationError, match="mine has no"):
            MINE.filter(**wrong)
    with pytest.raises(ConfigurationError, match="no benchmark 'nope'"):
        benchmark("nope")


def test_an_experiment_takes_a_benchmark(tmp_path: Path) -> None:
    assert len(Experiment(MINE, models=["demo"], repeats=3, directory=tmp_path)) == 6


def test_other_packages_add_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = importlib.metadata.EntryPoint("mine", f"{__name__}:MINE", "cambio_lab.benchmarks")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    assert benchmark("mine") == MINE
    assert "<b>Mine" not in benchmarks()._repr_html_() + MINE._repr_html_()


def test_without_the_package_the_table_shows_and_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    fresh = replace(miniwob.BENCHMARK)
    assert "not installed" in repr(Benchmarks([fresh]))
    with pytest.raises(ConfigurationError, match="MiniWoB") as caught:
        len(fresh)
    assert "cambio-lab[miniwob]" in caught.value.describe()
