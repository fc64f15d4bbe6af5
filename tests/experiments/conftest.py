"""A stand-in model service for experiments, and experiments on instant desktops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.experiments import Experiment, Task
from tests.messages_api import MessagesApi, Reply, View, reply, tool
from tests.recording.parts import open_workshop, workshop  # noqa: F401  (fixtures)

from .instant import InstantProvider

GOOD, BAD = "claude-sonnet-5-5", "claude-opus-5-5"
"""Two models of the stand-in: one does what it is told, the other writes something else."""


def write_word(view: View) -> Reply:
    """Writes the word it is asked for into ``word.txt``; the bad model writes another."""
    if view.calls:
        return reply("I wrote it.")
    word = view.prompt.split()[-1] if view.body["model"] == GOOD else "nonsense"
    return reply("I write it.", tool("bash", command=f"echo {word} > word.txt"))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[MessagesApi]:
    with MessagesApi(policy=write_word) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def draw(live: Any) -> None:
    live.values["word"] = f"word{live.random.randrange(10_000)}"


def ask(live: Any) -> str:
    return f"Write into word.txt the word {live.values['word']}"


async def check(live: Any) -> bool:
    return bool((await live.read("word.txt")).strip() == live.values["word"])


def word_task(name: str = "word", **options: Any) -> Task:
    return Task(name, ask, **{"setup": draw, "check": check, **options})


@pytest.fixture
def provider() -> InstantProvider:
    return InstantProvider()


@pytest.fixture
def experiment(tmp_path: Path, api: MessagesApi, provider: InstantProvider) -> Callable[..., Experiment]:
    """``experiment(tasks, **options)``: on instant desktops and the stand-in, in this test's folder."""

    async def make(settings: Any, *, server_id: str, kind: str | None = None) -> InstantProvider:
        return provider

    def build(tasks: list[Task] | None = None, **options: Any) -> Experiment:
        values = {"models": [GOOD], "repeats": 2, "directory": tmp_path, "make_provider": make, **options}
        return Experiment(tasks or [word_task()], **values)

    return build
