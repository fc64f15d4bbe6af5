"""An experiment in JupyterLab's sidebar: what the process that runs it tells, and what people say of its cells."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.errors import ConfigurationError, InvalidRequest, RunError
from cambio_lab.experiments import Experiment
from cambio_lab.experiments.scheduler import Tally
from cambio_lab.experiments.wall import Display, Published
from cambio_lab.recording import walls
from cambio_lab.reports import Run, Runs

from .conftest import GOOD


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "runtime"


class Quiet(Display):
    """A display that is not ``False``: what shows anything is published, too."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def show(self, tally: Tally) -> None:
        self.seen += [(row["ended"], row["running"]) for row in walls.listed()]


async def test_the_record_follows_the_experiment_and_leads_to_its_runs(experiment: Callable[..., Experiment]) -> None:
    shown = Quiet()
    one = experiment()
    await one.run(progress=shown, concurrency=1)
    (row,) = walls.listed()
    assert ("", 0) in shown.seen and "cells" not in row
    assert (row["name"], row["total"], row["success"], row["ended"]) == ("experiment", 2, 2, "complete")
    wall = walls.load(row["id"])
    assert [cell["state"] for cell in wall["cells"]] == ["success", "success"] and wall["live"] == []
    assert all(cell["cost_usd"] > 0 for cell in wall["cells"])
    assert Run.load(walls.run_file(row["id"], wall["cells"][1]["run"])).id
    await one.run(progress=shown)
    assert len(walls.listed()) == 1


async def test_tags_and_notes_are_in_results_runs_and_the_record(experiment: Callable[..., Experiment]) -> None:
    one = experiment()
    await one.run(progress=Quiet())
    one.annotate("word", GOOD, repeat=1, tags=["odd", "see Ada", "odd"])
    one.annotate("word", GOOD, repeat=1, note="writes twice")
    assert list(one.results["tags"]) == ["", "odd, see Ada"] and list(one.results["note"]) == ["", "writes twice"]
    assert [row["steps"] for row in Runs.of(one.runs()).filter(tag="odd")] == [1]
    (row,) = walls.listed()
    assert [cell["tags"] for cell in walls.load(row["id"])["cells"]] == [[], ["odd", "see Ada"]]
    one.annotate("word", GOOD, repeat=1, tags=[], note="")
    assert list(one.results["tags"]) == ["", ""]
    with pytest.raises(ConfigurationError, match="no cell"):
        one.annotate("other", GOOD, tags=["x"])
    with pytest.raises(InvalidRequest):
        one.annotate("word", GOOD, tags=["a, b"])


def record(tmp_path: Path, number: int, **more: Any) -> dict[str, Any]:
    (tmp_path / "runs").mkdir(exist_ok=True)
    cell = {"id": "t/m/default/0", "task": "t", "column": "m", "state": "success", "reason": "", "run": "a.cambio"}
    counts = dict.fromkeys(("total", "done", "success", "failed", "running"), 0)
    told = {"id": f"{number:032x}", "name": "x", "directory": str(tmp_path), "words": "", "ended": "", "live": []}
    return {**told, **counts, "cells": [{**cell, "cost_usd": 0.0}], **more}


def test_records_of_the_past_are_few_and_a_killed_one_is_interrupted(tmp_path: Path, runtime: Path) -> None:
    for number in range(walls.KEPT + 3):
        walls.publish(record(tmp_path, number))
        path = walls.folder() / f"{number:032x}.json"
        os.utime(path, (time.time() - 100 + number, time.time() - 100 + number))
    assert len(walls.listed()) == walls.KEPT
    walls.publish(record(tmp_path, 5))
    newest, *rest = walls.listed()
    assert newest["ended"] == "" and {row["ended"] for row in rest} == {"interrupted"}
    assert runtime.stat().st_mode & 0o077 == 0 or walls.folder().stat().st_mode & 0o077 == 0


def test_a_record_leads_nowhere_else(tmp_path: Path) -> None:
    walls.publish(record(tmp_path, 1))
    identity = f"{1:032x}"
    (tmp_path / "notes.jsonl").write_text('{"cell": "t/m/default/0", "tags": ["a"], "note": "b"}\n{"cell": \n[1]\n')
    assert walls.load(identity)["cells"][0]["tags"] == ["a"]
    for name in ("b.cambio", "../a.cambio", "/etc/passwd", "..", "a.cambio\0", ""):
        with pytest.raises(RunError):
            walls.run_file(identity, name)
    for wrong in ("../" + identity, identity[:-1], "", "x" * 32):
        with pytest.raises(RunError):
            walls.load(wrong)
    (walls.folder() / f"{identity}.json").write_text("[]")
    with pytest.raises(RunError):
        walls.load(identity)


def test_a_full_disk_does_not_stop_the_experiment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "runtime").write_text("not a folder")
    shown = Published(Display(), identity="a" * 32, name="x", directory=tmp_path)
    shown.show(Tally(1))
    shown.close(Tally(1, ended="complete"))
    assert "the sidebar is not told" in caplog.text
