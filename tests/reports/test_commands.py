"""``cambio-lab runs`` on a real store, in real terminals' encodings, and while a server holds the store."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cambio_lab.cli import main
from cambio_lab.reports import Run
from tests.messages_api import Script, click, member, reply, screenshot
from tests.recording.parts import Workshop

ROOT = Path(__file__).resolve().parent.parent.parent
Command = Callable[..., Awaitable[str]]
STEERING = "\x1b[2Jname\x1b]0;title\x07\r\u202eabc\u009b"


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """``await command("list", code=0)``: what ``cambio-lab runs list`` prints."""

    async def run(*words: str, code: int = 0) -> str:
        status = await asyncio.to_thread(main, ["runs", "--data-dir", str(tmp_path / "data"), *words])
        said = "".join(capsys.readouterr())
        assert status == code, said
        return said

    return run


async def record(workshop: Workshop, name: str = "a run", text: str = "x") -> Run:
    policy = Script([reply(screenshot(), click(640, 400)), reply("I type.", member("type", text=text))], end=text)
    return await workshop.run(f"type {text}", policy=policy, name=name)


async def test_a_run_from_its_list_to_its_removal(workshop: Workshop, command: Command, tmp_path: Path) -> None:
    run = await record(workshop)
    await workshop.close()
    assert run.id in await command("list")
    assert "left_click (640, 400)" in await command("show", run.id)
    await command("export", run.id, "out.cambio")
    assert await asyncio.to_thread(main, ["replay", "out.cambio"]) == 0
    assert "steps" in await command("import", "out.cambio")
    assert "imported" in await command("list")
    await command("rm", run.id)
    assert "0 runs deleted" in await command("prune", "--max-age-days", "1")
    assert not list((tmp_path / "data" / "screenshots").glob("*/*.png"))
    (tmp_path / "bad.cambio").write_bytes(b"no")
    assert "not a whole zip" in await command("show", "bad.cambio", code=1)


async def test_a_run_is_found_by_its_name_and_by_the_beginning_of_its_id(workshop: Workshop, command: Command) -> None:
    older, run = await record(workshop, "Flights"), await record(workshop, "Flights")
    assert "Run('Flights'" in await command("show", run.id[:8])
    await command("export", "Flights", "newest.cambio")
    assert Run.load("newest.cambio").id == run.id != older.id
    for name in ("Hotels", "missing.cambio", ""):
        assert f"There is no run or file {name}." in await command("show", name, code=1)


async def test_reading_works_while_a_server_holds_the_store(workshop: Workshop, command: Command) -> None:
    run = await record(workshop)
    assert run.id in await command("list")
    assert "left_click (640, 400)" in await command("show", run.id)
    await command("export", run.id, "out.cambio")
    assert Run.load("out.cambio") == run
    assert "uses this data directory" in await command("rm", run.id, code=1)


async def test_the_format_is_that_of_the_ending(workshop: Workshop, command: Command, tmp_path: Path) -> None:
    run = await record(workshop)
    await command("export", run.id, "x.md")
    assert (tmp_path / "x.md").read_text().startswith("# a run")
    await command("export", run.id, "X.HTML")
    assert (tmp_path / "X.HTML").read_text().startswith("<!doctype html>")
    for words, reason in (
        (("x.md", "--format", "html"), "A html file ends in .html or .htm"),
        (("x.docx",), "does not say its format"),
        (("x",), "Name one with --format"),
        (("x.md", "--format", "word"), "There is no format 'word'"),
        (("x.md/y.md",), "cannot be written"),
    ):
        assert reason in await command("export", run.id, *words, code=1)
    assert not (tmp_path / "x.docx").exists() and not (tmp_path / "x").exists()
    listed = await command("export", "--formats")
    assert ".cambio" in listed and ".atif.json" in listed


async def test_nothing_of_a_run_steers_the_terminal(workshop: Workshop, command: Command) -> None:
    run = await record(workshop, "\x9b2Jname\u202eabc", STEERING)
    shown = await command("show", run.id)
    assert "> type \\x1b[2Jname\\x1b]0;title\\x07" in shown
    for said in (await command("list"), shown):
        assert "\\x9b2Jname\\u202eabc" in said
        assert said.replace("\n", "").isprintable()


async def test_any_terminal_and_a_closed_pipe(workshop: Workshop, tmp_path: Path) -> None:
    for number in range(3):
        await record(workshop, f"Grüße 日本 {number}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "cambio_lab.cli", "runs", "--data-dir", str(tmp_path / "data"), "list"]

    def run(stdout: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=environment, text=True, stderr=subprocess.PIPE, stdout=stdout)

    whole = await asyncio.to_thread(run, stdout=subprocess.PIPE)
    assert whole.returncode == 0 and whole.stderr == "" and whole.stdout.count("Gr\\xfc\\xdfe \\u65e5") == 3
    reading, writing = os.pipe()
    os.close(reading)  # as `| head` does when it has seen enough
    closed = await asyncio.to_thread(run, stdout=writing)
    os.close(writing)
    assert closed.stderr == ""
