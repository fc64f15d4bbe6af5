"""Every export of every kind of run, loaded by its real reader: counts and three values. docs/runs.md has the table.

Run it with ``-s`` to print the table.
"""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import atif
import datasets
import duckdb
import imageio_ffmpeg
import pytest
from inspect_ai.log import read_eval_log

from cambio_lab import reports as exporters
from cambio_lab.experiments import Experiment
from cambio_lab.reports import Run
from tests.experiments.conftest import BAD, GOOD, api, experiment, provider, word_task  # noqa: F401  (fixtures)
from tests.recording.parts import Workshop

from .kinds import KINDS, run_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
Facts = tuple[int, str, float, str]
"""How many calls; models; US dollars; the first action. What every format must say of the same runs."""


def listed(models: Iterable[str]) -> str:
    return ", ".join(sorted(set(models)))


def told(runs: Sequence[Run]) -> Facts:
    actions = [row["action"] for run in runs for row in run.rows]
    return (
        len(actions),
        listed(run.model for run in runs),
        sum(run.usage.cost_usd for run in runs),
        actions[0] if actions else "",
    )


def by_cambio(path: Path) -> Facts:
    return told([Run.load(path)])


def by_inspect(path: Path) -> Facts:
    samples = read_eval_log(str(path)).samples or []
    tools = [event for sample in samples for event in sample.events if event.event == "tool"]
    usage = [usage.total_cost or 0.0 for sample in samples for usage in sample.model_usage.values()]
    models = (model for sample in samples for model in sample.model_usage)
    return len(tools), listed(models), sum(usage), tools[0].function if tools else ""


def by_atif(path: Path) -> Facts:
    read = atif.Trajectory.model_validate_json(path.read_text())
    calls = [call.function_name for step in read.steps for call in step.tool_calls or []]
    assert read.final_metrics is not None
    return len(calls), read.agent.model_name or "", read.final_metrics.total_cost_usd or 0.0, (calls or [""])[0]


def by_datasets(path: Path, cache: Path) -> Facts:
    counted = duckdb.sql(f"select count(*) from '{path}'")
    assert counted is not None
    (total,) = counted.fetchall()[0]
    if not total:  # an empty table, which `datasets` refuses to load
        return 0, "", 0.0, ""
    read: Any = datasets.Dataset.from_parquet(str(path), cache_dir=str(cache))
    assert len(read) == total
    rows = read.remove_columns([name for name in read.column_names if name.startswith("screenshot_")])
    return len(rows), listed(row["model"] for row in rows), sum(row["cost_usd"] for row in rows), rows[0]["action"]


def calls_by_datasets(path: Path, cache: Path) -> int:
    read: Any = datasets.Dataset.from_parquet(str(path), cache_dir=str(cache))
    parts = [part for row in read for message in row["messages"] for part in message["content"]]
    return sum(part["type"] == "tool_call" for part in parts)


async def test_every_export_of_every_kind(
    workshop: Workshop,
    experiment: Callable[..., Experiment],  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tasks = [word_task("one"), word_task("two"), word_task("three")]
    grid = experiment(tasks, models=[GOOD, BAD], settings=[{}, {"effort": "high"}], repeats=2)
    await grid.run(progress=False)
    kinds = {kind: [await run_of(workshop, kind)] for kind in KINDS} | {"experiment": grid.runs()}
    assert len(kinds["experiment"]) == 24
    lines = []
    for kind, runs in kinds.items():
        lines.append(await asyncio.to_thread(check, kind, runs, tmp_path / f"of {kind}"))
    with capsys.disabled():
        print("", *lines, sep="\n")


def check(kind: str, runs: list[Run], folder: Path) -> str:
    """Make every export of these runs and read it; a line of the table."""
    folder.mkdir()
    count, model, cost, action = expected = told(runs)
    assert set(exporters._OURS) == {
        *("cambio", "html", "markdown", "inspect", "atif", "dataset", "messages", "video"),
    }, "a new format belongs into this table"

    def agree(found: Facts) -> None:
        assert found[0] == count
        assert found[2] == pytest.approx(cost)
        assert (found[1], found[3]) == (model, action) or (not count and found[3] == "")

    exporters.write(runs, folder / "x.eval")
    agree(by_inspect(folder / "x.eval"))
    exporters.write(runs, folder / "x.parquet")
    rows = by_datasets(folder / "x.parquet", folder / "cache")
    assert rows[0] == count and rows[3] == action and rows[2] <= cost + 1e-9  # a last reply has no call to stand with
    exporters.write(runs, folder / "x.messages.parquet")
    assert calls_by_datasets(folder / "x.messages.parquet", folder / "cache") == count
    images = frames = 0
    for number, run in enumerate(runs):
        name = folder / f"{number}"
        exporters.write([run], name.with_suffix(".cambio"))
        assert by_cambio(name.with_suffix(".cambio")) == told([run])
        exporters.write([run], name.with_suffix(".atif.json"))
        found, own = by_atif(name.with_suffix(".atif.json")), told([run])
        assert found[0] == own[0] and found[2] == pytest.approx(own[2]) and found[3] == own[3]
        exporters.write([run], name.with_suffix(".md"))
        text = name.with_suffix(".md").read_text()
        assert len(re.findall(r"^\d+\\?\. ", text, re.M)) == own[0] and f"{own[2]:.4f}" in text.replace("\\", "")
        images += len(re.findall(r"!\[after step", text))
        exporters.write([run], name.with_suffix(".html"))
        assert own[1] in html.unescape(name.with_suffix(".html").read_text())
        if any(row["screenshot"] for row in run.rows):
            exporters.write([run], name.with_suffix(".mp4"))
            made, _ = imageio_ffmpeg.count_frames_and_secs(str(name.with_suffix(".mp4")))
            assert made > own[0]
            frames += made
    assert images == sum(row["screenshot"] is not None for run in runs for row in run.rows)
    return f"| {kind} | {len(runs)} | {count} | {model} | ${expected[2]:.4f} | {action or '–'} | {images} | {frames} |"
