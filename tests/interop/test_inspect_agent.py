"""An Inspect evaluation on our sandbox with our agent, against the strict stand-in; its samples as an experiment."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog, read_eval_log

from cambio_lab.client.workbench import Workbench
from cambio_lab.experiments import Experiment

from ..live_server import LiveServer
from ..messages_api.policies import ColorTarget
from ..messages_api.server import MessagesApi
from .button_task import button

TASK = Path(__file__).with_name("button_task.py")


def evaluate(folder: Path) -> EvalLog:
    """``inspect eval`` of the task, as a person runs it; its log."""
    options = ["--model", "mockllm/model", "--log-dir", str(folder), "--display", "plain"]
    command = [sys.executable, "-m", "inspect_ai", "eval", TASK.name, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, cwd=TASK.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.eval")
    return read_eval_log(str(path))


@pytest.mark.slow
async def test_an_inspect_evaluation_with_our_agent(
    start_server: Any, messages_api: MessagesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages_api.policy = ColorTarget()
    live: LiveServer = await start_server(desktop="sandbox", env=messages_api.environment)
    monkeypatch.setenv("CAMBIO_LAB_URL", live.url)
    monkeypatch.setenv("CAMBIO_LAB_TOKEN", live.token)
    log = await asyncio.to_thread(evaluate, tmp_path)
    assert log.status == "success", log.error
    (sample,) = log.samples or []
    assert sample.scores is not None and sample.scores["pressed"].value == "C"
    assert sample.output.completion.startswith("Clicked the target at")
    assert [message.role for message in sample.messages][:2] == ["user", "assistant"]
    kinds = [event.event for event in sample.events]
    assert {"model", "tool", "score", "info", "sandbox"} <= set(kinds)
    clicks = [event for event in sample.events if event.event == "tool" and event.function == "left_click"]
    assert len(clicks) == 1
    assert sample.model_usage["claude-sonnet-5-5"].output_tokens > 0
    assert "data:image" in str(sample.attachments) or "data:image" in str(sample.messages)
    async with Workbench(live.url, live.token) as lab:
        (session,) = await lab.sessions()
        assert session["status"] == "inactive" and session["steps"] == len(
            [e for e in sample.events if e.event == "tool"]
        )


@pytest.mark.slow
async def test_an_inspect_task_as_an_experiment(
    messages_api: MessagesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages_api.policy = ColorTarget()
    for name, value in messages_api.environment.items():
        monkeypatch.setenv(name, value)
    experiment = Experiment.from_inspect(
        button(),
        models=["claude-sonnet-5-5"],
        repeats=2,
        directory=tmp_path,
        lab={"desktop": "sandbox"},
    )
    again = Experiment.from_inspect(button(), models=["claude-sonnet-5-5"], repeats=2, directory=tmp_path)
    assert experiment.grid.tasks[0].digest() == again.grid.tasks[0].digest()
    tally = await experiment.run(progress=False, concurrency=1)
    assert tally.success == 2, [(cell.outcome.failure, cell.outcome.error) for cell in experiment.cells if cell.outcome]
