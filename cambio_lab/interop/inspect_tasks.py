"""An Inspect task's samples as tasks of an experiment: what they ask, how they are prepared, how they are scored."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from inspect_ai import Task
from inspect_ai._eval.task.sandbox import read_sandboxenv_file, resolve_sample_files
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageUser, ModelName, ModelOutput
from inspect_ai.scorer import Scorer, Target, value_to_float
from inspect_ai.solver import TaskState
from inspect_ai.util._sandbox.context import sandbox_default_context_var, sandbox_environments_context_var
from inspect_ai.util._sandbox.environment import SandboxEnvironment

from ..client.files import Ran
from ..errors import ConfigurationError
from .inspect_agent import asked
from .inspect_sandbox import LONGEST_SECONDS, DesktopSandbox, SandboxConfig, unique_name

_UNNAMED = re.compile(r"[^A-Za-z0-9 ._+-]+")


class Live(Protocol):
    """What a task's functions are given: :class:`cambio_lab.experiments.Live`."""

    desktop: Any
    answer: str

    async def write(self, path: str, content: str | bytes) -> None: ...

    async def read_bytes(self, path: str) -> bytes: ...


def tasks(task: Task) -> Iterator[dict[str, Any]]:
    """Yield the arguments of an experiment's task for each sample."""
    scorers = [task.scorer] if callable(task.scorer) else list(task.scorer or [])
    if not scorers:
        raise ConfigurationError("The Inspect task has no scorer.", hint="An experiment needs a verdict.")
    for number, sample in enumerate(task.dataset, 1):
        name = _UNNAMED.sub("-", f"{task.name}-{sample.id or number}").lstrip(" ._+-")[:80]
        text = sample.input if isinstance(sample.input, str) else asked(sample.input)
        yield {
            "name": name,
            "message": text,
            "setup": _setup(sample),
            "check": _check(sample, scorers),
            "config": _config(sample, task),
            "tags": (task.name,),
        }


def _config(sample: Sample, task: Task) -> dict[str, Any]:
    """Return what a ``cambio`` sandbox is configured with; the model is the experiment's."""
    chosen = sample.sandbox or task.sandbox
    config = chosen.config if chosen is not None else None
    given = config.model_dump(exclude_none=True) if isinstance(config, SandboxConfig) else {}
    return {name: value for name, value in given.items() if name != "model"}


def _setup(sample: Sample) -> Callable[[Live], Any]:
    files, script = dict(sample.files or {}), sample.setup

    async def setup(live: Live) -> None:
        sandbox = LiveSandbox(live)
        for path, contents in resolve_sample_files(files).items():
            await sandbox.write_file(path, await read_sandboxenv_file(contents))
        if script:
            text = await read_sandboxenv_file(script)
            path = f"/tmp/{uuid.uuid4().hex}"
            await sandbox.write_file(path, text if text.lstrip().startswith(b"#!") else b"#!/usr/bin/env bash\n" + text)
            await sandbox.exec(["chmod", "+x", path])
            result = await sandbox.exec([path], timeout=300)
            if not result.success:
                raise RuntimeError(f"The sample's set-up failed: {result.stderr}")

    return setup


def _check(sample: Sample, scorers: list[Scorer]) -> Callable[[Live], Any]:
    facts = sample.model_dump(include={"id", "input", "target", "choices", "metadata"})

    async def check(live: Live) -> float:
        return await asyncio.create_task(_score(facts, sample, scorers, live))  # its context variables stay its own

    return check


async def _score(facts: dict[str, Any], sample: Sample, scorers: list[Scorer], live: Live) -> float:
    """Return the mean of the scorers, each as a number from 0 to 1."""
    environments: dict[str, SandboxEnvironment] = {"default": LiveSandbox(live)}
    sandbox_environments_context_var.set(environments)
    sandbox_default_context_var.set("default")
    output = ModelOutput.from_content("cambio_lab", live.answer)
    question = [ChatMessageUser(content=sample.input)] if isinstance(sample.input, str) else list(sample.input)
    state = TaskState(
        model=ModelName("cambio/agent"),
        sample_id=sample.id or 1,
        epoch=1,
        input=sample.input,
        messages=[*question, output.message],
        target=Target(sample.target),
        choices=sample.choices,
        output=output,
        completed=True,
        metadata=dict(facts["metadata"] or {}),
    )
    number = value_to_float()
    scores = [await scorer(state, Target(sample.target)) for scorer in scorers]
    values = [0.0 if score is None else min(1.0, max(0.0, number(score.value))) for score in scores]
    return sum(values) / len(values)


class LiveSandbox(DesktopSandbox):
    """The desktop of an experiment's run, for an Inspect task's set-up and scorers."""

    def __init__(self, live: Live) -> None:
        super().__init__()
        self._live = live

    async def _run(self, argv: list[str], stdin: bytes = b"", timeout: float | None = None) -> Ran:
        seconds = LONGEST_SECONDS if timeout is None else timeout
        try:
            code, out, err = await self._live.desktop.execute(argv, stdin=stdin, timeout=seconds)
        except TimeoutError:
            return Ran(None, b"", b"", False)
        return Ran(128 - code if code < 0 else code, out, err, False)

    async def _put(self, data: bytes) -> str:
        name = unique_name()
        await self._live.write(name, data)
        return name

    async def _get(self, name: str) -> bytes:
        return await self._live.read_bytes(name)
