"""Whole experiments with the real sessions, agent, SDK and store, on instant desktops and the stand-in service."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.errors import ConfigurationError, DesktopLost, InvalidRequest, UnsupportedModel
from cambio_lab.experiments import Experiment, ExperimentStopped, Task, Verdict
from cambio_lab.recording.run_file import unpack
from tests.messages_api import ErrorStatus, MessagesApi, View, rate_limited, reply, screenshot, tool
from tests.messages_api.models import MODELS, cost_usd

from .conftest import BAD, GOOD, check, draw, word_task, write_word
from .driver import build as build_killed
from .instant import SMALL, InstantProvider

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., Experiment]


async def test_the_grid_is_run_and_judged(experiment: Make, api: MessagesApi, provider: InstantProvider) -> None:
    grid = experiment(models=[GOOD, BAD], settings=[{}, {"effort": "high"}], repeats=2)
    tally = await grid.run(concurrency=3, progress=False)
    assert (tally.ended, tally.done, tally.success, tally.total) == ("complete", 8, 4, 8)
    assert provider.most_open <= 3 and not provider.open
    table = grid.results
    assert set(table[table["model"] == GOOD]["success"]) == {True}
    assert set(table[table["model"] == BAD]["success"]) == {False}
    assert set(table[table["model"] == BAD]["failure"]) == {"agent"}
    assert (table["steps"] == 1).all() and (table["cost_usd"] > 0).all() and (table["model_seconds"] > 0).all()
    assert tally.spent_usd == pytest.approx(api.spent_usd, rel=1e-6)
    assert not api.refusals
    by_repeat = table.groupby("repeat")["seed"].nunique()
    assert (by_repeat == 1).all(), "models and settings are compared on the same draws"
    efforts = {request["output_config"]["effort"] for request in api.bodies}
    assert efforts == {"medium", "high"}


async def test_each_cell_is_an_ordinary_recorded_run(experiment: Make) -> None:
    grid = experiment(repeats=1, config={"effort": "high"})
    await grid.run(progress=False)
    run = grid.open("word", GOOD)
    assert run.name == "word/claude-sonnet-5-5/default/0"
    assert run.complete and [step["tool"] for step in run.contents.steps] == ["bash"]
    assert len(run.contents.exchanges) == 2
    environment = run.manifest["environment"]
    assert (environment["options"]["effort"], environment["approval"]) == ("high", "never")
    assert environment["desktop"]["display"] == [*SMALL] and environment["experiment"]["effort"] == "high"
    assert (await run.replay()).identical


async def test_screenshots_are_kept_once(experiment: Make, api: MessagesApi) -> None:
    """In the bundle; the store's own copy goes when the run ends."""
    api.policy = lambda view: reply("I saw it.") if view.calls else reply("I look.", screenshot())
    grid = experiment(repeats=1)
    await grid.run(progress=False)
    run = unpack(grid.directory / "runs" / grid.cells[0].outcome.bundle)  # type: ignore[union-attr]
    assert run.screenshots
    assert not [path for path in (grid.directory / "screenshots").rglob("*") if path.is_file()]


async def test_what_is_done_is_not_run_again(experiment: Make, api: MessagesApi, provider: InstantProvider) -> None:
    await experiment(repeats=2).run(progress=False)
    requests = len(api.requests)
    tally = await experiment(repeats=3).run(progress=False)
    assert tally.done == 3 and provider.made == 3, "the grid grew by one repeat, and only that was run"
    assert len(api.requests) == requests + 2


async def test_stop_and_go_on(experiment: Make, api: MessagesApi, provider: InstantProvider) -> None:
    api.delay = 0.2
    grid = experiment(repeats=6)
    running = grid.start(concurrency=2, progress=False)
    async with asyncio.timeout(20):
        while grid.tally.done < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    grid.stop()
    tally = await running
    assert tally.ended == "stopped" and 2 <= tally.done < 6 and not provider.open
    done = {cell.cell_id: cell.outcome.run_id for cell in grid.cells if cell.outcome}
    again = await experiment(repeats=6).run(progress=False)
    assert again.ended == "complete" and again.done == 6
    assert done.items() <= {cell.cell_id: cell.outcome.run_id for cell in grid.cells if cell.outcome}.items()


async def test_cancelling_leaves_nothing_behind(experiment: Make, api: MessagesApi, provider: InstantProvider) -> None:
    api.delay = 5.0
    task = asyncio.create_task(experiment().run(progress=False))
    async with asyncio.timeout(20):
        while len(provider.open) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not provider.open


async def test_only_infrastructure_is_tried_again(experiment: Make, provider: InstantProvider) -> None:
    provider.refuse = 2
    grid = experiment(models=[GOOD, BAD], repeats=1)
    tally = await grid.run(concurrency=1, progress=False)
    assert (tally.done, tally.failed, tally.retries) == (2, 0, 2)
    attempts = {cell.model: cell.attempts for cell in grid.cells}
    assert attempts[GOOD] + attempts[BAD] == 4


async def test_used_up_tries_are_no_verdict(experiment: Make, provider: InstantProvider) -> None:
    provider.refuse = 2
    grid = experiment(repeats=2, retries=0)
    tally = await grid.run(concurrency=1, progress=False)
    assert (tally.done, tally.failed) == (0, 2)
    assert set(grid.results["failure"]) == {"infrastructure"} and not grid.results["counted"].any()
    assert grid.summary()["runs"].sum() == 0 and grid.summary()["not_counted"].sum() == 2
    again = await grid.run(progress=False)
    assert (again.done, again.failed) == (2, 0), "a new run is a new chance"


async def test_a_dead_engine_ends_the_run_instead_of_burning_the_grid(
    experiment: Make, provider: InstantProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.experiments.scheduler.RETRY_SECONDS", 0.01)
    provider.refuse = 10_000
    with pytest.raises(ExperimentStopped, match="The engine is away") as caught:
        await experiment(repeats=100).run(concurrency=2, progress=False)
    assert "goes on where it was" in caught.value.hint
    assert provider.refuse > 9_900


async def test_a_refused_key_stops_at_once(experiment: Make, api: MessagesApi) -> None:
    api.fail(ErrorStatus("authentication_error", "invalid x-api-key"), times=50)
    with pytest.raises(ExperimentStopped, match="401"):
        await experiment(repeats=20).run(concurrency=2, progress=False)
    assert len(api.requests) <= 4


async def test_limits_are_limits(experiment: Make, api: MessagesApi) -> None:
    api.policy = lambda view: reply("Again.", screenshot())
    grid = experiment([word_task(config={"max_steps": 3})], repeats=1)
    await grid.run(progress=False)
    (row,) = grid.results.to_dict("records")
    assert row["failure"] == "limit" and row["counted"] and not row["success"] and row["steps"] == 3


async def test_reaching_a_limit_with_the_work_done_is_a_success(experiment: Make, api: MessagesApi) -> None:
    def write_and_dawdle(view: View) -> Any:
        word = view.prompt.split()[-1]
        return reply("On and on.", tool("bash", command=f"echo {word} > word.txt"))

    api.policy = write_and_dawdle
    grid = experiment([word_task(config={"max_steps": 2})], repeats=1)
    await grid.run(progress=False)
    assert grid.results["success"].all()


async def test_the_task_time_is_a_limit(experiment: Make, api: MessagesApi) -> None:
    api.delay = 30.0
    grid = experiment([word_task(timeout=0.5)], repeats=1)
    await grid.run(progress=False)
    (row,) = grid.results.to_dict("records")
    assert row["failure"] == "limit" and "0.5 s" in row["error"]


async def test_money_and_steps_are_capped_over_the_whole_experiment(experiment: Make, api: MessagesApi) -> None:
    grid = experiment([word_task(config={"max_steps": 4})], repeats=40, max_steps=12)
    tally = await grid.run(concurrency=4, progress=False)
    assert tally.ended == "max_steps" and tally.spent_steps <= 12 and 0 < tally.done < 40
    more = experiment([word_task(config={"max_steps": 4, "max_cost_usd": 0.01})], repeats=40, max_cost_usd=0.03)
    more.directory = more.directory.with_name("money")
    tally = await more.run(concurrency=4, progress=False)
    assert tally.ended == "max_cost_usd"
    # a session looks at its money before each request, so one may pass its allowance by that request
    assert tally.spent_usd <= 0.03 + 4 * 0.02


async def test_an_authors_mistake_is_neither_retried_nor_counted(experiment: Make) -> None:
    def forgets(live: Any) -> None:
        live.read("word.txt")

    grid = experiment([word_task(check=forgets)], repeats=1)
    tally = await grid.run(progress=False)
    (row,) = grid.results.to_dict("records")
    assert row["failure"] == "task" and "TypeError" in row["error"] and not row["counted"]
    assert tally.retries == 0


async def test_a_bug_in_a_check_stops_the_experiment(experiment: Make, api: MessagesApi) -> None:
    def buggy(live: Any) -> bool:
        return bool(live.no_such_method(f"{live.seed}"))

    grid = experiment([word_task(check=buggy)], repeats=20)
    with pytest.raises(ExperimentStopped, match=r"AttributeError.*the same in 3 cells"):
        await grid.run(concurrency=1, progress=False)
    assert len([row for row in grid.cells if row.state == "failed"]) == 3
    assert not grid.results["counted"].any()

    corrected = experiment([word_task()], repeats=20)
    tally = await corrected.run(concurrency=2, progress=False)
    assert (tally.done, tally.success, tally.failed) == (20, 20, 0), "the failed cells were run again"


async def test_different_mistakes_of_authors_do_not_stop_the_experiment(experiment: Make) -> None:
    def raising(kind: type[Exception]) -> Any:
        def check(live: Any) -> bool:
            raise kind("a mistake")

        return check

    kinds: list[type[Exception]] = [KeyError, TypeError, ValueError]
    tasks = [word_task(kind.__name__, check=raising(kind)) for kind in kinds]
    tally = await experiment(tasks, repeats=2).run(progress=False)
    assert (tally.done, tally.failed, tally.ended) == (0, 6, "complete")


async def test_checks_plain_and_async_scores_and_asserts(experiment: Make) -> None:
    def plain(live: Any) -> float:
        assert live.answer == "I wrote it."
        return 0.5 if live.read("word.txt").strip() == live.values["word"] else 0.0

    def claims(live: Any) -> bool:
        assert live.steps == 7, "it made other steps"
        return True

    async def missing(live: Any) -> Verdict:
        return Verdict("x" in await live.read("never-written.txt"), 0.0)

    tasks = [word_task("plain", check=plain), word_task("claims", check=claims), word_task("missing", check=missing)]
    grid = experiment(tasks, repeats=1)
    await grid.run(progress=False)
    rows = {row["task"]: row for row in grid.results.to_dict("records")}
    assert rows["plain"]["score"] == 0.5 and not rows["plain"]["success"]
    assert "other steps" in rows["claims"]["reason"] and rows["claims"]["failure"] == "agent"
    assert rows["missing"]["failure"] == "agent" and "does not exist" in rows["missing"]["reason"]


async def test_several_messages_go_one_after_another(experiment: Make, api: MessagesApi) -> None:
    api.policy = lambda view: reply(f"Heard: {view.prompt}")

    def said(live: Any) -> bool:
        return bool(live.answers == ["Heard: one", "Heard: two"])

    grid = experiment([Task("talk", ["one", "two"], check=said)], repeats=1)
    await grid.run(progress=False)
    assert grid.results["success"].all()


async def test_a_changed_question_is_not_mixed_with_old_answers(experiment: Make) -> None:
    await experiment(repeats=1).run(progress=False)
    changed = experiment([word_task(config={"max_steps": 9})], repeats=1)
    with pytest.raises(ConfigurationError, match="not the ones that were run before: word"):
        await changed.run(progress=False)
    assert await changed.forget("word") == 1
    assert (await changed.run(progress=False)).done == 1


async def test_one_process_at_a_time(experiment: Make, api: MessagesApi, provider: InstantProvider) -> None:
    api.delay = 0.3
    first = asyncio.create_task(experiment().run(progress=False))
    async with asyncio.timeout(20):
        while not provider.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    with pytest.raises(ConfigurationError, match="uses this data directory"):
        await experiment().run(progress=False)
    await first


def test_what_no_session_would_take_is_refused_before_anything_is_spent(experiment: Make) -> None:
    with pytest.raises(InvalidRequest, match="max_stepz"):
        experiment(config={"max_stepz": 3})
    with pytest.raises(UnsupportedModel):
        experiment(models=["claude-0"])
    with pytest.raises(ConfigurationError, match="no setting colour"):
        experiment(lab={"colour": "red"})
    with pytest.raises(ConfigurationError, match="same name: word"):
        experiment([word_task(), word_task()])


async def test_without_a_key_it_says_so_before_it_begins(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(Exception, match="no key") as caught:
        await experiment().run(progress=False)
    assert "ANTHROPIC_API_KEY_FILE" in caught.value.hint  # type: ignore[attr-defined]


async def test_the_key_may_live_in_a_file(
    experiment: Make, api: MessagesApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    (tmp_path / "key").write_text(f"{api.key}\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))
    assert (await experiment(repeats=1).run(progress=False)).success == 1


async def test_one_refusal_for_speed_slows_all(experiment: Make, api: MessagesApi) -> None:
    """Eight sessions at once, one 429 with a second to wait: until then come only requests that were under way."""
    api.fail(rate_limited("1"))
    tally = await experiment(repeats=8).run(concurrency=8, progress=False)
    assert tally.success == 8 and tally.retries == 0
    refused = [request.time for request in api.requests if request.status == 429]
    assert len(refused) == 1
    meanwhile = [request for request in api.requests if 0 < request.time - refused[0] < 0.95]
    asked = [json.dumps(request.body["messages"][0]) for request in meanwhile]
    assert len(asked) == len(set(asked)), "somebody did not wait"


async def test_a_desktop_that_dies_is_infrastructure(
    experiment: Make, api: MessagesApi, provider: InstantProvider
) -> None:
    api.delay = 0.2
    killed: list[bool] = []

    def kill_once(live: Any) -> None:
        draw(live)
        if not killed:
            killed.append(True)
            live.desktop.on["run_command"] = lost

    def lost() -> None:
        raise DesktopLost("The container is gone.")

    grid = experiment([word_task(setup=kill_once, check=check)], repeats=1)
    tally = await grid.run(progress=False)
    assert tally.success == 1 and tally.retries == 1 and grid.cells[0].attempts == 2


async def test_a_killed_kernel_goes_on_where_it_was(tmp_path: Path, api: MessagesApi) -> None:
    """``kill -9`` at half time, then ``run`` again: the finished half is not run again.

    The service charges for a reply as it begins to think about it; of one that never arrived nobody but the service
    knows. So both runs are killed while they wait for such a reply: everything else is on the books.
    """
    finishing, unseen = itertools.count(1), list[int]()

    def hold(view: View) -> Any:
        held = bool(view.calls) and next(finishing) > 4
        if held:
            unseen.append(len(api.service.usages))  # which bill this reply will be
        api.delay = 120.0 if held else 0.0  # of this reply
        return write_word(view)

    api.policy = hold
    command = [sys.executable, "-m", "tests.experiments.driver", str(tmp_path), "8"]
    driver = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    experiment = build_killed(tmp_path, 8)
    try:
        async with asyncio.timeout(60):
            while len(unseen) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        driver.kill()
        await driver.wait()
    api.policy, api.delay = write_word, 0.0
    before = {cell.cell_id: cell.outcome.run_id for cell in experiment.cells if cell.outcome}
    requests, bills = len(api.requests), [api.service.usages[number] for number in unseen]
    tally = await experiment.run(progress=False)
    assert (tally.ended, tally.done, tally.success) == ("complete", 8, 8)
    after = {cell.cell_id: cell.outcome.run_id for cell in experiment.cells if cell.outcome}
    assert len(before) == 4 and before.items() <= after.items()
    assert len(api.requests) - requests == 2 * 4
    assert len({*after.values()}) == 8
    received = api.spent_usd - sum(cost_usd(MODELS[GOOD], bill) for bill in bills)
    assert tally.spent_usd == pytest.approx(received, rel=1e-6), "what the killed runs had received is on the books"
