"""What Inspect finds by its entry point, ``sandbox="cambio"`` and ``cambio_agent``; and its tasks in an experiment.

For the agent our loop works on the sample, in the server, where people watch and stop it; its messages and events
become the sample's. With ``sandbox="cambio"`` it works on the sample's own desktop, so that tools and scorers see what
it did; else it makes a session of its own. In an experiment a sample is a task: message, set-up and check.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from inspect_ai import Task
from inspect_ai._eval.task.sandbox import read_sandboxenv_file, resolve_sample_files
from inspect_ai.agent import Agent, AgentState, agent
from inspect_ai.dataset import Sample
from inspect_ai.event import Event
from inspect_ai.log import transcript
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, ModelName, ModelOutput, ModelUsage
from inspect_ai.model._model import model_usage_context_var, sample_model_usage_context_var, set_model_usage
from inspect_ai.scorer import Scorer, Target, value_to_float
from inspect_ai.solver import TaskState
from inspect_ai.util import sandbox
from inspect_ai.util._sandbox.context import sandbox_default_context_var, sandbox_environments_context_var
from inspect_ai.util._sandbox.environment import SandboxEnvironment
from pydantic import TypeAdapter

from ..client.files import Ran
from ..client.session import Session
from ..client.workbench import Workbench
from ..errors import ConfigurationError, InvalidRequest
from ..reports import Run
from ..reports.inspect_sample import Transcript, usage_json
from .inspect_sandbox import LONGEST_SECONDS, CambioSandbox, DesktopSandbox, SandboxConfig, unique_name

__all__ = ["CambioSandbox", "cambio_agent"]


OPTIONS = ("model", "effort", "thinking", "max_tokens", "max_steps", "max_cost_usd", "max_turn_tokens")
_ATTACHMENT = re.compile(r"attachment://([0-9a-f]{64})\Z")
_MESSAGES: TypeAdapter[list[ChatMessage]] = TypeAdapter(list[ChatMessage])
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@agent(description="Works on a desktop with cambio_lab's own loop.")
def cambio_agent(**options: Any) -> Agent:
    """Return the agent. ``options`` hold for the turn: model, effort, thinking, max_steps, max_cost_usd, ...

    What is not given is as the session's configuration says: that of the sandbox, or the server's defaults.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise InvalidRequest(f"cambio_agent has no options {', '.join(unknown)}.", hint=f"Known: {', '.join(OPTIONS)}.")

    async def execute(state: AgentState) -> AgentState:
        async with _session(options) as session:
            turn = await session.send(asked(state.messages), metadata={"options": options}, show=False)
            run = await session.load_run()
        messages, events = _told(run)
        for event in events:
            transcript()._event(event)
        facts: dict[str, Any] = {
            "session_id": session.id,
            "stopped": turn.stopped,
            "steps": len(turn.steps),
            "server": session.vnc_url,
        }
        transcript().info(facts, source="cambio_lab")
        usage = ModelUsage.model_validate(usage_json(run.usage))
        state.messages = [*state.messages, *messages[1:]]  # the first one is what was asked
        state.output = ModelOutput.from_content(run.model, turn.text)
        state.output.usage = usage
        for counted in (sample_model_usage_context_var, model_usage_context_var):
            set_model_usage(run.model, usage, counted.get(None))
        return state

    return execute


@asynccontextmanager
async def _session(options: Mapping[str, Any]) -> AsyncIterator[Session]:
    """Yield the session of the sample's sandbox, else a new one that ends with the sample."""
    try:
        own = sandbox().as_type(CambioSandbox).session if sandbox_environments_context_var.get(None) else None
    except TypeError:  # a sandbox of another kind
        own = None
    if own is not None:
        yield own
        return
    async with Workbench() as lab, await lab.create_session("Inspect", model=options.get("model")) as session:
        yield session


def asked(messages: list[ChatMessage]) -> str:
    """Return what the sample asks, as one message: instructions first. Only text can be passed on."""
    texts = [one.text for kind in (ChatMessageSystem, ChatMessageUser) for one in messages if isinstance(one, kind)]
    return "\n\n".join(text for text in texts if text.strip())


def _told(run: Run) -> tuple[list[ChatMessage], list[Event]]:
    """Return a run as Inspect's own messages and events, with its screenshots in place."""
    made = Transcript(run)
    events = [event for event in made.events if event["event"] != "sample_init"]
    for event in events:
        if seen := event.pop("input_refs", None):  # the log would have every image once for each request that sent it
            event["input"] = made.messages[seen[0][1] - 1 : seen[0][1]]
    messages, events = _filled([made.messages, events], made.attachments)
    return _MESSAGES.validate_python(messages), [_EVENT.validate_python(event) for event in events]


def _filled(value: Any, attachments: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner, attachments) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, attachments) for inner in value]
    if isinstance(value, str) and (found := _ATTACHMENT.match(value)):
        return attachments[found[1]]
    return value


_UNNAMED = re.compile(r"[^A-Za-z0-9 ._+-]+")


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


def _setup(sample: Sample) -> Callable[[Any], Any]:
    files, script = dict(sample.files or {}), sample.setup

    async def setup(live: Any) -> None:
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


def _check(sample: Sample, scorers: list[Scorer]) -> Callable[[Any], Any]:
    facts = sample.model_dump(include={"id", "input", "target", "choices", "metadata"})

    async def check(live: Any) -> float:
        return await asyncio.create_task(_score(facts, sample, scorers, live))  # its context variables stay its own

    return check


async def _score(facts: dict[str, Any], sample: Sample, scorers: list[Scorer], live: Any) -> float:
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

    def __init__(self, live: Any) -> None:
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
        return bytes(await self._live.read_bytes(name))
