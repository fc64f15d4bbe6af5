"""A run for people and for other tools: viewer, report, inspect_ai log, comparison, commands."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cambio_lab.recording.rows import COLUMNS, describe, draw, points, scenes
from cambio_lab.reports import Run, compare
from cambio_lab.reports.comparison import align
from cambio_lab.reports.notebooks import difference, normal
from tests.messages_api import Script, click, member, reply, screenshot, think
from tests.recording.parts import Workshop

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
async def run(workshop: Workshop) -> Run:
    policy = Script(
        [
            reply(think("hm"), "I look.", screenshot()),
            reply("I click.", click(640, 400), member("left_click_drag", start_coordinate=[9, 9], coordinate=[90, 90])),
            reply(member("scroll", coordinate=[300, 300], scroll_direction="down", scroll_amount=2)),
            reply(HOSTILE, member("type", text=HOSTILE)),
        ],
        end=HOSTILE,
    )
    return await workshop.run("Do this: " + HOSTILE, policy=policy, name=HOSTILE)


async def test_steps_are_a_table(run: Run) -> None:
    steps = run.steps
    assert tuple(steps.columns) == COLUMNS and list(steps.index) == [1, 2, 3, 4, 5]
    assert steps["cost_usd"].sum() < run.usage.cost_usd < 1  # the last reply made no call
    assert (steps.loc[steps["said"] != "", "model_ms"] > 0).all()
    assert str(steps["started_at"].dt.tz) == "UTC"
    assert run.screenshot(1).startswith(b"\x89PNG")
    with pytest.raises(LookupError):
        run.screenshot(99)


async def test_the_viewer_needs_nothing_and_trusts_nothing(run: Run) -> None:
    page = run._repr_mimebundle_()["text/html"]
    assert "<script>alert" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page and "http" not in re.sub(r"data:[^\"]+|xmlns=\S+", "", page)
    images = re.findall(r'<figure[^>]*><img src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(images) == 4
    assert all(base64.b64decode(data).startswith(b"\xff\xd8") for data in images)
    assert run.to_html().startswith("<!doctype html>")


async def test_the_transcript_has_what_was_said_before_each_call_once(run: Run) -> None:
    page = run._repr_mimebundle_()["text/html"]
    transcript = re.sub(r"<[^>]+>", " ", page[page.index("Transcript") :])
    order = [transcript.index(words) for words in ("I look.", "1. screenshot", "I click.", "2. left_click")]
    assert order == sorted(order)
    assert transcript.count("You:") == 1 and transcript.count("Agent:") == 4


async def test_actions_are_drawn_where_they_were(run: Run) -> None:
    scene = scenes(run.rows)[1]
    assert [step["action"] for step in scene.steps] == ["left_click", "left_click_drag"]
    plain, drawn = (
        np.asarray(Image.open(__import__("io").BytesIO(draw(run.screenshot(1), steps, 1280))).convert("RGB"))
        for steps in ([], scene.steps[:1])
    )
    changed = (np.abs(plain.astype(int) - drawn) > 60).any(axis=2).nonzero()
    assert 620 < changed[1].min() < 640 < changed[1].max() < 680
    assert 380 < changed[0].min() < 400 < changed[0].max() < 440


async def test_exporters(run: Run, tmp_path: Path) -> None:
    report = run.to_markdown(tmp_path / "report.md")
    assert "<script" not in report and len(list((tmp_path / "report_images").glob("*.jpg"))) == 4
    log = run.to_inspect(tmp_path / "log.json")
    sample = log["samples"][0]
    assert [m["role"] for m in sample["messages"][:3]] == ["user", "assistant", "tool"]
    assert json.loads((tmp_path / "log.json").read_text()) == log


async def test_two_runs_side_by_side(workshop: Workshop) -> None:
    same = [reply(screenshot()), reply(click(10, 10), screenshot())]
    left = await workshop.run("go", policy=Script([*same, reply(click(20, 20))]), name="left")
    right = await workshop.run("go", policy=Script([*same, reply(member("key", text="Tab"))]), name="right")
    found = compare(left, right)
    assert found.parts_at == 3 and found.similarity == pytest.approx(3 / 4)
    assert list(found.table["same"]) == [True, True, True, False]
    assert found.totals["steps"] == (4.0, 4.0) and found.totals["cost_usd"][0] > 0
    page = found._repr_mimebundle_()["text/html"]
    assert page.count("<img") == 8, "both screenshots of every line"
    assert page.count("First difference") == 1 and "left_click (20, 20) against key" in repr(found)
    assert compare(left, left).parts_at is None


ALIGNED = json.loads((Path(__file__).parents[2] / "labextension" / "tests" / "align.json").read_text())


@pytest.mark.parametrize("case", ALIGNED, ids=[case["name"] for case in ALIGNED])
def test_two_runs_are_aligned_as_in_the_front_end(case: dict[str, Any]) -> None:
    left, right = (
        [{**step, "step": n, "action": step["tool"], "unseen_tree": step["tree"]} for n, step in enumerate(case[side])]
        for side in ("left", "right")
    )
    lines = [
        [pair.left and pair.left["step"], pair.right and pair.right["step"], pair.same, list(pair.tree)]
        for pair in align(left, right)
    ]
    assert lines == case["lines"]


def test_outputs_differ_by_what_matters() -> None:
    assert normal("took 3.2 s at 2026-11-24T00:01:02Z, Session 1a2b3c4d") == normal(
        "took 11 ms at 2025-01-01T10:00:00Z, Session ffffffff"
    )
    assert normal("12 steps") != normal("13 steps") and normal("$0.0012") != normal("$0.0013")
    from nbformat.v4 import new_output

    def stream(text: str) -> list[object]:
        return [new_output("stream", name="stdout", text=text)]

    assert difference(stream("a\nb\n"), stream("a\nb\n")) == ""
    assert difference(stream("a\nb\n"), stream("a\nc\n")) == "'b' is gone"
    assert difference(stream("a"), []) == "0 outputs instead of 1"


def test_where_an_action_points() -> None:
    place, start = {"type": "coordinate", "x": 3, "y": 4}, {"type": "coordinate", "x": 1, "y": 2}
    assert points({"coordinate": [1, 2]}) == [(1, 2)]
    assert points({"target": place}) == [(3, 4)]
    assert points({"from": start, "target": place}) == [(1, 2), (3, 4)]
    assert points({"target": {"type": "ref", "ref": "ref_1"}}) == points({"target": 7}) == []


def test_an_action_in_words() -> None:
    assert describe("left_click", {"coordinate": [1, 2], "text": "ctrl"}) == "left_click (1, 2) 'ctrl'"
    assert describe("screenshot", {}) == "screenshot"
