"""The report, judging again, and trying tasks before money is spent."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas

from cambio_lab.experiments import Benchmark, Experiment, Live, Observation, Published, Task, action
from cambio_lab.reports import Run

from .conftest import BAD, GOOD, ask, check, draw, word_task
from .test_policies import careless, writer

Make = Callable[..., Experiment]


async def strict(live: Any) -> bool:
    """A check with a bug: it wants the word in capitals."""
    return bool((await live.read("word.txt")).strip() == live.values["word"].upper())


async def asks_more(live: Any) -> bool:
    return bool(await live.read("another.txt"))


async def vandal(observation: Observation) -> Sequence[Any] | str:
    return "Nothing." if observation.step else [action("bash", command="echo nonsense > word.txt")]


async def test_runs_are_judged_again_after_the_check_was_corrected(experiment: Make) -> None:
    made = experiment([word_task(check=strict)], models=[GOOD, BAD], repeats=3)
    await made.run(progress=False)
    assert not any(cell.outcome.success for cell in made.cells if cell.outcome)
    fixed = experiment([word_task()], models=[GOOD, BAD], repeats=3)
    rows = await fixed.rescore()
    assert [(row["judged"], row["before"], row["after"]) for row in rows] == [
        (True, False, row["cell"].startswith(f"word/{GOOD}")) for row in rows
    ]
    assert len(rows) == 6
    assert {cell.model: cell.outcome.failure for cell in fixed.cells if cell.outcome} == {GOOD: None, BAD: "agent"}
    tally = await fixed.run(progress=False)  # nothing is left to run, and the new question is accepted
    assert (tally.done, tally.success, tally.ended) == (6, 3, "complete")


async def test_a_check_that_raised_in_every_cell_can_be_corrected_without_new_runs(experiment: Make) -> None:
    async def buggy(live: Live) -> bool:
        await live.read("word.txt")
        return bool(1 / 0)

    made = experiment([word_task(check=buggy)], repeats=2)
    await made.run(progress=False)
    fixed = experiment([word_task()], repeats=2)
    assert [row["after"] for row in await fixed.rescore()] == [True, True]
    assert (await fixed.run(progress=False)).done == 2


async def test_what_was_not_kept_is_not_judged(experiment: Make) -> None:
    made = experiment(repeats=1)
    await made.run(progress=False)
    for changed in (word_task(check=asks_more), word_task(timeout=77)):
        (row,) = await experiment([changed], repeats=1).rescore()
        assert not row["judged"] and row["after"] is None
    (cell,) = made.cells
    assert cell.outcome is not None and cell.outcome.success


async def test_tasks_are_tried_before_money_is_spent(experiment: Make) -> None:
    async def always(live: Live) -> bool:
        return True

    tasks = [
        word_task("good", solution=writer),
        word_task("unsolved", solution=careless),
        Task("too easy", ask, setup=draw, check=always),
        word_task("no solution"),
    ]
    made = experiment(tasks)
    found = {row["task"]: row for row in await made.check_tasks()}
    assert {name: row["ok"] for name, row in found.items()} == {
        "good": True,
        "unsolved": False,
        "too easy": False,
        "no solution": True,
    }
    assert found["too easy"]["untouched"].startswith("yes") and found["good"]["solved"].startswith("yes")
    assert all(cell.outcome is None for cell in made.cells)


async def test_the_report_is_one_page_whose_links_lead_to_the_runs(experiment: Make, tmp_path: Path) -> None:
    tasks = [word_task("one", tags=("words",)), word_task("two", tags=("others",))]
    source = Benchmark(
        name="mine",
        title="<script>alert(1)</script>",
        version="1",
        load=lambda split: list(tasks),
        metric="the share of words",
        licence="MIT",
        citation="me",
        published=(Published("someone", 0.5, "a paper"),),
        differences=("none of their pages",),
    )
    made = experiment(source, models=[GOOD, vandal], repeats=2)
    await made.run(progress=False)
    path = made.report()
    page = path.read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert not re.findall(r'(?:src|href)="(?!data:|runs/)', page)
    links = re.findall(r'href="(runs/[^"]+)"', page)
    assert len(links) == 8 and all((path.parent / link).is_file() for link in links)
    other = made.report(tmp_path / "paper" / "table.html")  # the experiment may lie in a folder that goes away
    links = re.findall(r'href="(table-runs/[^"]+)"', other.read_text())
    assert len(links) == 8 and all(Run.load(other.parent / link).rows is not None for link in links)
    assert repr(made).endswith("2 tasks × 2 models × 1 setting × 2 repeats; 8/8 done, 4 succeeded, 0 running, $0.02>")
    assert made._repr_html_().count("✓") == 4
    for words in (
        "2 / 2",
        "0 / 2",
        "4 / 4",
        "0.0 – 49.0",
        "someone",
        "50.0 %",
        "none of their pages",
        "words",
        "vandal",
    ):
        assert words in page, words
    with path.with_name("results.csv").open() as file:
        assert [row["success"] for row in csv.DictReader(file) if row["model"] == GOOD] == ["True"] * 4
    table = pandas.read_parquet(path.with_name("results.parquet"))
    assert list(table[table["model"] == GOOD]["success"]) == [True] * 4 and len(table) == 8


async def test_the_report_of_an_experiment_that_has_not_begun(experiment: Make) -> None:
    made = experiment()
    assert "open" in made.report().read_text()


def test_check_is_what_the_question_leaves_out() -> None:
    one, other = word_task(), word_task(check=strict)
    assert one.question == other.question and one.digest() != other.digest()
    assert word_task(timeout=3).question != one.question
    assert check is not strict


async def test_forgotten_runs_are_not_judged_again(experiment: Make) -> None:
    made = experiment()
    await made.run(progress=False)
    await made.forget()
    assert len(await made.rescore()) == 0
