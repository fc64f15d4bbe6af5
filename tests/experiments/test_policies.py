"""Policies and baselines in the place of a model, through the same loop, limits, recorder and results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.desktop.keys import HumanAction
from cambio_lab.errors import ConfigurationError
from cambio_lab.experiments import Experiment, ExperimentStopped, Observation, action, benchmark
from cambio_lab.reports import Run
from tests.messages_api import MessagesApi
from tests.recording.parts import Workshop

from .conftest import GOOD, word_task
from .miniwob_solvers import SOLVERS, solution

Make = Callable[..., Experiment]


async def writer(observation: Observation) -> Sequence[Any] | str:
    """Writes the word it is asked for, after a look."""
    assert observation.screenshot.startswith(b"\x89PNG")
    if observation.step:
        return f"I wrote it after {len(observation.results)} results."
    return [action("bash", command=f"echo {observation.message.split()[-1]} > word.txt")]


async def careless(observation: Observation) -> Sequence[Any] | str:
    return "I did nothing."


async def broken(observation: Observation) -> Sequence[Any] | str:
    raise KeyError("a bug of the author")


async def busy(observation: Observation) -> Sequence[Any] | str:
    return [action("left_click", coordinate=[5, 5])]


async def test_policies_stand_beside_models(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = experiment([word_task(solution=writer)], models=[GOOD, writer, careless, "oracle", "random"], repeats=1)
    await made.run(progress=False)
    assert {cell.model: cell.outcome.success for cell in made.cells if cell.outcome} == {
        GOOD: True,
        "writer": True,
        "careless": False,
        "oracle": True,
        "random": False,
    }
    run = made.open("word", "writer")
    assert (await run.replay()).identical
    assert "I wrote it" in next(cell.outcome.answer for cell in made.cells if cell.model == "writer" and cell.outcome)


async def test_a_person_is_a_baseline(experiment: Make, workshop: Workshop, tmp_path: Path) -> None:
    """What a person showed once is done again on each fresh desktop, and counted as a person's steps."""
    session = await workshop.start(record_human="full")
    at = time.time()
    shown = [
        HumanAction("left_click", {"coordinate": [4, 5]}, at),
        HumanAction("type", {"text": "milk"}, at + 1),
        HumanAction("key", {"text": "Return"}, at + 2),
    ]
    await session.human.record(shown)
    await session.human.recorded()
    await workshop.registry.end(session.id)
    path = (await Run.from_store(workshop.store, session.id)).save(tmp_path / "shown.cambio")
    tasks = [word_task("shown", demonstration=path, check=None), word_task("not shown", check=None)]
    made = experiment(tasks, models=["human", careless], repeats=1)
    await made.run(progress=False)
    table = made.results.set_index(["task", "model"])
    assert table.loc[("shown", "human"), "human_steps"] == 3
    assert set(table["human_steps"]) == {0, 3}
    run = made.open("shown", "human")
    done = [(row["action"], row["arguments"]) for row in run.rows if row["action"] != "screenshot"]
    assert done == [(one.tool, one.arguments) for one in shown]
    assert "No person has shown" in made.open("not shown", "human").answers[-1]
    assert (await run.replay()).identical


async def test_tools_are_a_factor_of_the_grid(experiment: Make, api: MessagesApi) -> None:
    settings = {"pixels": {"tools": ["computer"]}, "shell": {"tools": ["bash"]}}
    made = experiment([word_task()], settings=settings, repeats=1)
    await made.run(progress=False)
    assert {cell.setting: cell.outcome.success for cell in made.cells if cell.outcome} == {
        "pixels": False,
        "shell": True,
    }
    offered = {tuple(tool["name"] for tool in body["tools"] if "name" in tool) for body in api.bodies}
    assert ("bash",) in offered and () in offered, offered


async def test_a_policy_needs_no_key(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    made = experiment([word_task(solution=writer)], models={"mine": writer}, repeats=1)
    assert (await made.run(progress=False)).success == 1


async def test_a_policy_is_held_to_the_limits(experiment: Make) -> None:
    made = experiment([word_task(config={"max_steps": 5})], models=[busy], repeats=1)
    await made.run(progress=False)
    (cell,) = made.cells
    assert cell.outcome is not None and (cell.outcome.failure, cell.outcome.steps) == ("limit", 5)


async def test_a_bug_in_a_policy_stops_the_experiment_and_is_not_counted(experiment: Make) -> None:
    made = experiment(models=[broken], repeats=5)
    with pytest.raises(ExperimentStopped, match="a bug of the author"):
        await made.run(concurrency=1, progress=False)
    assert {cell.outcome.failure for cell in made.cells if cell.outcome} == {"task"}


async def test_random_draws_the_same_for_the_same_seed(experiment: Make, tmp_path: Path) -> None:
    calls = []
    for name in ("one", "two"):
        made = experiment(models=["random"], repeats=1, name=name)
        await made.run(progress=False)
        calls.append(made.open("word", "random").steps["arguments"].tolist())
    assert calls[0] == calls[1] and len(calls[0]) > 10


def test_two_models_of_one_name_are_refused(experiment: Make) -> None:
    with pytest.raises(ConfigurationError, match="same name: writer"):
        experiment(models=[writer, writer])


async def test_miniwob_through_the_loop(tmp_path: Path) -> None:
    """The baselines on real pages: the oracle follows solvers, step by step, and its run can be replayed."""
    names = ("click-dialog", "enter-password")
    tasks = [replace(task, solution=solution(SOLVERS[task.name])) for task in benchmark("miniwob", names)]
    made = Experiment(
        tasks, models=["oracle", "random"], repeats=1, directory=tmp_path, lab={"desktop": "local"}, name="pages"
    )
    tally = await made.run(concurrency=2, progress=False)
    found = {(cell.task, cell.model): cell.outcome for cell in made.cells}
    assert tally.ended == "complete" and tally.failed == 0
    for name in names:
        outcome = found[name, "oracle"]
        assert outcome is not None and outcome.success and outcome.reason == "reward 1", outcome
        assert (await made.open(name, "oracle").replay()).identical
    assert not found["enter-password", "random"].success  # type: ignore[union-attr]
