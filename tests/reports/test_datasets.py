"""Trajectories and datasets, read by the packages that people use for them."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path

import atif
import duckdb
import pandas
import polars
import pytest
from pyarrow import parquet

from cambio_lab.errors import ConfigurationError
from cambio_lab.reports import Run, to_dataset
from cambio_lab.reports.dataset import replies, step_rows
from tests.messages_api import Script, reply, screenshot, tool
from tests.recording.parts import Workshop

from .kinds import KINDS, run_of


@pytest.mark.parametrize("kind", KINDS)
async def test_a_trajectory_is_valid_atif(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    run = await run_of(workshop, kind)
    run.export(tmp_path / "x.atif.json")
    read = atif.Trajectory.model_validate_json((tmp_path / "x.atif.json").read_text())
    agent = [step for step in read.steps if step.source == "agent"]
    calls = [(call.function_name, call.arguments) for step in agent for call in step.tool_calls or []]
    assert calls == [(row["action"], row["arguments"]) for row in run.rows]
    assert [step.message for step in read.steps if step.source == "user"] == run.prompts
    assert read.final_metrics is not None and read.final_metrics.total_cost_usd == run.usage.cost_usd
    costs = [step.metrics.cost_usd or 0.0 for step in agent if step.metrics is not None]
    assert len(costs) == len(agent) and sum(costs) == pytest.approx(run.usage.cost_usd)
    shown = [
        part.source.path
        for step in agent
        for result in (step.observation.results if step.observation else [])
        if isinstance(result.content, list)
        for part in result.content
        if part.type == "image" and part.source is not None
    ]
    assert len(shown) == sum(row["screenshot"] is not None for row in run.rows)
    for path in shown:
        digest = hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
        assert digest == Path(path).stem
    if kind == "desktop":
        assert [step.reasoning_content for step in agent if step.reasoning_content] == ["hm"]
        assert "A person used the desktop." in [step.message for step in read.steps]


async def test_thoughts_are_known_after_the_conversation_was_cleared(workshop: Workshop) -> None:
    run = await run_of(workshop, "desktop")
    run.contents.messages.clear()
    found = replies(run)
    assert [reply.thought for reply in found if reply.thought] == ["hm"]
    assert [call["step"] for reply in found for call in reply.calls] == [row["step"] for row in run.rows]


async def test_a_dataset_loads_everywhere(workshop: Workshop, tmp_path: Path) -> None:
    runs = [await run_of(workshop, kind) for kind in KINDS]
    path = to_dataset(runs, tmp_path / "x.parquet")
    steps = [row for run in runs for row in run.rows]
    counted = duckdb.sql(f"select count(*) from '{path}'")
    assert counted is not None
    for count in (len(pandas.read_parquet(path)), len(polars.read_parquet(path)), counted.fetchall()[0][0]):
        assert count == len(steps)
    table = pandas.read_parquet(path)
    assert list(table["action"]) == [row["action"] for row in steps]
    assert table["cost_usd"].sum() == pytest.approx(sum(row["cost_usd"] for row in steps))
    click = table[table["action"] == "left_click"].iloc[0]
    assert (click["x"], click["y"], click["x_normalised"], click["y_normalised"]) == (640, 400, 0.5, 0.5)
    drag = table[table["action"] == "left_click_drag"].iloc[0]
    assert (drag["start_x"], drag["x"]) == (9, 90)
    assert click["screenshot_before"]["bytes"] == runs[0].screenshot(1)
    assert list(table[table["human_input"]]["text"]) == ["I type."]
    assert set(table["approval"]) == {"", "approved", "denied"}
    assert list(table[table["thought"] != ""]["thought"]) == ["hm"]
    sent = table[table["arguments"].str.contains('"ref"')]
    assert list(sent["element"])[-1] == 'button "Send order"'
    assert str(table["started_at"].dt.tz) == "UTC" and (table["screen_width"] == 1280).all()


async def test_coordinates_are_shares_of_the_screenshot_that_the_model_saw(workshop: Workshop) -> None:
    run = await run_of(workshop, "desktop")
    run.contents.steps[0] |= {"width": 640, "height": 1600}  # as of a reduced screen, or a page
    (click,) = [row for row in step_rows(run) if row["action"] == "left_click"]
    assert (click["x"], click["x_normalised"], click["y_normalised"]) == (640, 1.0, 0.25)


async def test_datasets_shows_screenshots_as_images(workshop: Workshop, tmp_path: Path) -> None:
    import datasets

    run = await run_of(workshop, "desktop")
    path = to_dataset([run], tmp_path / "x.parquet")
    conversations = to_dataset([run], tmp_path / "x.messages.parquet", messages=True)
    run.export(tmp_path / "y.messages.parquet")
    assert (tmp_path / "y.messages.parquet").read_bytes() == conversations.read_bytes()
    read = await asyncio.to_thread(datasets.Dataset.from_parquet, str(path), cache_dir=str(tmp_path / "cache"))
    assert isinstance(read.features["screenshot_after"], datasets.Image)
    assert read[1]["screenshot_before"].size == (1280, 800)
    read = await asyncio.to_thread(datasets.Dataset.from_parquet, str(conversations), cache_dir=str(tmp_path / "cache"))
    (whole,) = read
    parts = [part["type"] for message in whole["messages"] for part in message["content"]]
    assert parts.count("image") == len(whole["images"]) > 3 and parts.count("tool_call") == 7
    assert whole["images"][0].size == (1280, 800)


async def test_secrets_stay_masked(workshop: Workshop, tmp_path: Path) -> None:
    policy = Script([reply("I use {{PASSWORD}}.", tool("bash", command="echo {{PASSWORD}}"), screenshot())])
    run = await workshop.run("log in", policy=policy, secrets={"PASSWORD": "hunter2-secret"})
    for name in ("x.parquet", "x.messages.parquet", "x.atif.json", "x.eval"):
        run.export(tmp_path / name)
    for name in ("x.parquet", "x.messages.parquet"):
        assert "hunter2-secret" not in str(parquet.read_table(tmp_path / name).to_pylist())
    assert "hunter2-secret" not in (tmp_path / "x.atif.json").read_text()
    assert "{{PASSWORD}}" in (tmp_path / "x.atif.json").read_text()


async def test_without_pyarrow_it_says_what_to_install(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Run = await run_of(workshop, "failed")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match="need pyarrow"):
        run.export(tmp_path / "x.parquet")
