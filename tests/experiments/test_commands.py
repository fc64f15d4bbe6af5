"""``cambio-lab experiment``: as a batch system calls it."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cambio_lab.cli import main
from tests.messages_api import MessagesApi

ROOT = Path(__file__).resolve().parents[2]
Here = Callable[..., tuple[int, str]]
FILE = """
from cambio_lab.experiments import Experiment, Task
from tests.experiments.conftest import GOOD
from tests.experiments.instant import make_instant

def setup(live):
    live.values["word"] = f"word{live.random.randrange(10_000)}"

def message(live):
    return f"Write into word.txt the word {live.values['word']}"

def check(live):
    return live.read("word.txt").strip() == live.values["word"]

experiment = Experiment(
    [Task("word", message, setup=setup, check=check)],
    models=[GOOD], repeats=4, name="batch", directory=DIRECTORY, make_provider=make_instant,
)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "words.py"
    path.write_text(FILE.replace("DIRECTORY", repr(str(tmp_path))))
    return path


async def command(*arguments: str, kill_after: str | None = None) -> tuple[int, str]:
    """Exit status and both outputs; ``kill_after`` sends SIGTERM once this appears in the output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cambio_lab.cli", "experiment", *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(120):
        while line := await process.stdout.readline():
            said += line.decode()
            if kill_after and kill_after in said:
                kill_after = None
                process.send_signal(signal.SIGTERM)
        return await process.wait(), said


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """A command in this process: its exit status and what it said."""

    def call(*arguments: str) -> tuple[int, str]:
        status = main(["experiment", *arguments])
        return status, "".join(capsys.readouterr())

    return call


async def test_run_status_results(file: Path, tmp_path: Path, api: MessagesApi, here: Here) -> None:
    assert here("status", str(tmp_path / "batch"))[0] == 1
    status, said = await command("run", str(file), "--concurrency", "2")
    assert status == 0 and "4/4 done, 4 succeeded" in said, said
    status, said = here("status", str(file))
    assert status == 0 and "4/4 done, 0 failed, 0 running" in said
    status, said = here("results", str(tmp_path / "batch"))
    assert status == 0 and said.count("yes ") == 4
    here("results", str(tmp_path / "batch"), "--csv", str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [row["success"] for row in rows] == ["True"] * 4
    assert all(Path(row["run"]).is_file() for row in rows)  # noqa: ASYNC240


async def test_what_a_check_quotes_does_not_steer_the_terminal(file: Path, api: MessagesApi, here: Here) -> None:
    quoting = 'raise ValueError("\\x1b]0;title\\x07" + live.values["word"])'
    checked = 'return live.read("word.txt").strip() == live.values["word"]'
    other = file.with_name("quoting.py")
    other.write_text(FILE.replace("DIRECTORY", repr(str(file.parent))).replace(checked, quoting))
    await command("run", str(other))
    said = here("results", str(file.parent / "batch"))[1]
    assert "\\x1b]0;title\\x07word" in said and "\x1b" not in said


async def test_a_batch_systems_goodbye(file: Path, tmp_path: Path, api: MessagesApi) -> None:
    """SIGTERM ends it in order with its own exit status; the next job goes on."""
    api.delay = 1.0
    status, said = await command("run", str(file), "--concurrency", "1", kill_after="0/4 done")
    assert status == 3 and "stopped" in said, said
    api.delay = 0.0
    status, said = await command("run", str(file))
    assert status == 0 and "4/4 done, 4 succeeded" in said, said


def test_mistakes_are_said_in_one_line(tmp_path: Path, here: Here) -> None:
    status, said = here("run", str(tmp_path / "none.py"))
    assert status == 1 and "There is no file" in said and "Traceback" not in said
    (tmp_path / "empty.py").write_text("x = 1\n")
    status, said = here("run", str(tmp_path / "empty.py"))
    assert status == 1 and "experiment = Experiment(...)" in said
    status, said = here("results", str(tmp_path))
    assert status == 1 and "There is no experiment" in said


def test_a_benchmark_runs_by_name(here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "miniwob" in here("benchmarks")[1]
    options = ("--tasks", "click-test", "--models", "random", "--desktop", "local", "--name", "page")
    status, said = here("run", "--benchmark", "miniwob", *options)
    assert status == 0 and "1/1 done" in said
    assert "click-test / random" in here("results", "experiments/page")[1]
    assert here("run")[0] == here("run", "--benchmark", "miniwob")[0] == 1
