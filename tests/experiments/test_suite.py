"""The ten tasks that ship with the package, on real containers, by two stand-in models that look at the desktop."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambio_lab.experiments import Experiment
from cambio_lab.experiments.suite import TASKS
from cambio_lab.recording.run_file import unpack
from tests.messages_api import MessagesApi

from .solver import CAREFUL, CARELESS, WRONG, solve


def test_there_are_ten_and_each_says_what_it_is() -> None:
    assert len(TASKS) == len({task.name for task in TASKS}) == 10
    assert all(task.description and task.setup and task.check for task in TASKS)


@pytest.mark.slow
@pytest.mark.docker
async def test_checks_are_true_and_false_where_they_must_be(
    docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MessagesApi(policy=solve) as api:
        for name, value in api.environment.items():
            monkeypatch.setenv(name, value)
        experiment = Experiment(
            TASKS, models=[CAREFUL, CARELESS], repeats=1, directory=tmp_path, lab={"desktop": "docker"}
        )
        tally = await experiment.run(concurrency=3, progress=False)
    verdicts = {(cell.task, cell.model): cell.outcome for cell in experiment.cells}
    assert {key: outcome.failure for key, outcome in verdicts.items() if outcome} == {
        (task.name, model): "agent" if model == CARELESS and task.name in WRONG else None
        for task in TASKS
        for model in (CAREFUL, CARELESS)
    }, [(key, outcome.error) for key, outcome in verdicts.items() if outcome and outcome.failure]
    assert (tally.done, tally.failed) == (20, 0) and not api.refusals
    pressed = verdicts["press button", CAREFUL]
    assert pressed is not None and pressed.environment["image"]
    assert unpack(experiment.directory / "runs" / pressed.bundle).manifest["complete"]
