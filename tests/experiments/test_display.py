"""What people see of a running experiment."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest

from cambio_lab.events import Usage
from cambio_lab.experiments import report, results
from cambio_lab.experiments.engine import AttemptProgress, Mark, Outcome
from cambio_lab.experiments.ledger import CellRow
from cambio_lab.experiments.scheduler import Tally
from cambio_lab.experiments.wall import Page, Terminal, as_html, describe, duration, words


def test_the_line_says_done_failed_running_spend_and_time_left() -> None:
    tally = Tally(20, done=8, success=5, failed=1, running=3, spent_usd=1.234, left_seconds=185, retries=2)
    assert words(tally) == "9/20 done, 5 succeeded, 1 failed, 2 tried again, 3 running, $1.23, 3:05 min left"
    tally.ended, tally.seconds = "max_cost_usd", 7620
    assert words(tally).endswith("$1.23, 2:07 h, max cost usd")
    assert duration(41.6) == "42 s"


def test_names_cannot_break_the_page() -> None:
    tally = Tally(
        2, running=1, live=[AttemptProgress("a", "<script>alert(1)</script>", "acting", 3, 0.2, b"\xff\xd8jpeg")]
    )
    page = as_html(describe(tally))
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert 'src="data:image/jpeg;base64,/9hqcGVn"' in page and 'role="progressbar"' in page


def test_the_wall_is_bounded() -> None:
    tally = Tally(100, live=[AttemptProgress(str(number), f"cell {number}") for number in range(60)])
    page = as_html(describe(tally))
    assert page.count("width:200px;font-size") == 24 and "and 36 more" in page


def test_the_grid_shows_every_cell_and_links_to_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tally = Tally(4, live=[AttemptProgress("a", "t<b>/m/default/2", "acting", 3)])
    tally.cells = {
        "t<b>/m/default/0": Mark("t<b>/m/default/0", "t<b>", "m", "success", "", "one.cambio"),
        "t<b>/m/default/1": Mark("t<b>/m/default/1", "t<b>", "m", "failure", "no <i>file</i>", "bad name?.cambio"),
        "t<b>/m/default/2": Mark("t<b>/m/default/2", "t<b>", "m"),
        "u/m/default/0": Mark("u/m/default/0", "u", "m", "none", "engine lost"),
    }
    page = as_html(describe(tally, identity="1f", directory=tmp_path / "experiments" / "x"))
    assert page.count("<tr>") == 3 and "<b>" not in page and "<i>" not in page
    assert 'href="experiments/x/runs/one.cambio"' in page
    assert 'href="experiments/x/runs/bad%20name%3F.cambio"' in page
    assert "t&lt;b&gt;/m/default/2: running (acting, step 3)" in page
    assert "2 without success" in page and "engine lost" in page


def test_a_page_is_not_flooded() -> None:
    shown: list[str] = []
    page = Page(shown.append)
    for _ in range(50):
        page.show(Tally(1))
    page.close(Tally(1, done=1, ended="complete"))
    assert len(shown) == 2 and "complete" in shown[-1]


def test_a_log_file_gets_lines_not_control_characters() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream)
    terminal.show(Tally(4, done=2, success=2))
    terminal.close(Tally(4, done=4, success=4, ended="complete"))
    assert stream.getvalue().count("\n") == 2 and "\x1b" not in stream.getvalue()


def cells() -> list[CellRow]:
    """Three tasks, two models; one model does the first task always, the second half of the time, the third never."""
    good = {"easy": (True, True), "middle": (True, False), "hard": (False, False)}
    rows = []
    for task, verdicts in good.items():
        for model in ("one", "other"):
            for repeat, verdict in enumerate(verdicts):
                success = verdict and model == "one"
                outcome = Outcome(
                    f"{task}{model}{repeat}",
                    f"{task}/{model}/default/{repeat}",
                    success=success,
                    score=float(success),
                    failure=None if success else "agent",
                    usage=Usage(cost_usd=0.5),
                    wall_seconds=10,
                    steps=4,
                )
                rows.append(CellRow(outcome.cell_id, task, model, "default", repeat, 1, "done", 1, outcome))
    broken = Outcome("x", "hard/one/default/2", failure="infrastructure", error="no engine", usage=Usage(cost_usd=1.0))
    rows.append(CellRow(broken.cell_id, "hard", "one", "default", 2, 1, "failed", 3, broken))
    rows.append(CellRow("hard/other/default/2", "hard", "other", "default", 2, 1, "open", 0, None))
    return rows


def test_the_summary_counts_what_is_evidence() -> None:
    summary = results.summarise(results.rows(cells(), Path()), k=(1, 2)).reset_index().set_index("model")
    one = summary.loc["one"]
    assert (one["runs"], one["successes"], one["not_counted"]) == (6, 3, 1)
    assert one["success_rate"] == 0.5 and one["low"] == pytest.approx(0.1876, abs=1e-4)
    assert one["pass@1"] == pytest.approx(0.5) and one["pass@2"] == pytest.approx(2 / 3)
    assert one["cost_per_success"] == pytest.approx(4.0 / 3), "the broken run's dollar was spent, too"
    assert one["task_low"] < one["low"] and one["task_high"] > one["high"], "tasks differ: wider for other tasks"
    other = summary.loc["other"]
    assert (other["runs"], other["successes"]) == (6, 0) and math.isinf(other["cost_per_success"])


def test_models_are_compared_task_by_task() -> None:
    found = results.difference(results.rows(cells(), Path()), "model", "one", "other")
    assert found["difference"] == pytest.approx(0.5) and found["tasks"] == 3
    assert not found["separate"], "three tasks are few"


def test_plots_are_drawn(tmp_path: Path) -> None:
    table = results.frame(cells(), Path())
    for figure in (
        report.success_rates(results.summarise(results.rows(cells(), Path()))),
        report.heat(table),
        report.cost_and_time(table),
    ):
        figure.savefig(tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 5_000
    assert [text.get_text() for text in report.heat(table).axes[0].texts].count("50%") == 1
