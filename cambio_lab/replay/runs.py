"""Runs again: a whole one without desktop, network or key; one that a session is bound to; one up to a step of it.

A session is bound to a file with VCR's modes: ``once`` (the default) replays when the file is there and records
otherwise, ``none`` only replays, ``all`` records again. The file is written when the session ends.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, fields
from pathlib import Path

from ..agent import Agent
from ..agent.client import ModelClient, load_sdk
from ..agent.options import AgentOptions, TurnOptions
from ..agent.tools import ENDED_EARLY
from ..agent.transcript import close_open_batch, unexecuted
from ..desktop.base import Desktop
from ..errors import BundleRefused, CambioError, InvalidRequest, RecordingMissing
from ..events import Event, TurnFailed
from ..recording import Contents, Json, collect, dump, images_of, run_file
from ..recording.placeholders import expand
from ..recording.schema import TURN_OPTIONS, check
from ..store import Store
from . import conversation
from .desktop_replay import DesktopReplay, replay_on
from .playback import Playback
from .recorded import RecordedGate, RecordedTools


@dataclass(frozen=True)
class Replayed:
    """A finished replay. ``messages`` is the conversation, images inline; ``seconds`` what it took."""

    messages: list[Json]
    events: list[Event]
    identical: bool
    seconds: float


def _build(contents: Contents, pace: float) -> tuple[Agent, ModelClient, Playback]:
    """Return the real agent over a recording, set up as it was recorded."""
    environment = contents.manifest.get("environment", {})
    try:
        given = environment.get("options") or {"model": contents.manifest.get("model", "demo")}
        options = AgentOptions(**{item.name: given[item.name] for item in fields(AgentOptions) if item.name in given})
    except CambioError as error:
        raise BundleRefused(f"the recorded options are not valid: {error.describe()}") from None
    gate = RecordedGate(contents)
    playback = Playback(contents, gate, pace=pace)
    client = ModelClient(options.platform, options.base_url, options.model_stall, transport=playback.transport)
    desktop, history = playback.desktop.for_agent, _history_before(contents)
    return Agent(desktop=desktop, options=options, gate=gate, client=client, history=history), client, playback


async def replay(contents: Contents, *, pace: float = 0.0) -> Replayed:
    """Replay a whole run. :class:`~cambio_lab.errors.ReplayDiverged` when the result is not the recorded one."""
    loop, happened = asyncio.get_running_loop(), list[Event]()
    (agent, client, playback), tools = _build(contents, pace), RecordedTools(contents)

    async def emit(event: Event) -> None:
        happened.append(event)

    try:
        await client.open(agent.options.model)  # loads the SDK, which does not count
        await load_sdk()
        began = loop.time()
        for event in contents.events:
            if event["kind"] == "ConversationCleared":
                agent.clear()
            if event["kind"] != "UserMessage":
                continue
            await playback.run(agent, event["content"], emit, _turn_options(event, tools, contents))
            if isinstance(happened[-1], TurnFailed) and playback.divergence is not None:
                raise playback.divergence
        playback.check_exhausted()
        messages = agent.history
    finally:
        await playback.aclose()
        await agent.aclose()
    identical = dump(messages) == dump(await asyncio.to_thread(contents.conversation))
    return Replayed(messages, happened, identical, loop.time() - began)


def _history_before(contents: Contents) -> list[Json]:
    """Return the conversation before the first message: that of the run it was forked from, or nothing."""
    own = 0  # messages of this run before its first request: turns can be stopped before they ask anything
    for event in contents.events:
        own += event["kind"] == "HistoryAppended"
        if event["kind"] == "RequestSent" and contents.exchanges:
            body = expand(next(contents.bodies()), contents.find)
            messages = conversation(body)
            return messages[: max(0, len(messages) - own)]
        if event["kind"] == "ConversationCleared":
            break
    return []


def _turn_options(event: Json, tools: RecordedTools, contents: Contents) -> TurnOptions:
    metadata = event.get("metadata") or {}
    values = metadata.get("options") or {}
    check(TURN_OPTIONS, values, "the options of a message")
    images = []
    for image in images_of(event):
        if (data := contents.find(image["sha256"])) is None:
            raise BundleRefused(f"the image {image['sha256'][:12]}… of a message is missing")
        images.append((data, image["media_type"]))
    return TurnOptions(**values, extra_tools=tools or None, images=images)


SUFFIX = ".cambio"


def place(record: str) -> Path:
    """Return the path of a bound file, which must lie below the server's working directory.

    :class:`~cambio_lab.errors.InvalidRequest` otherwise, and for any other suffix than ``.cambio``.
    """
    base = Path.cwd().resolve()
    path = (base / record).resolve()
    if path.suffix != SUFFIX:
        raise InvalidRequest("record must name a .cambio file.", details={"config.record": "must end in .cambio"})
    if not path.is_relative_to(base):
        raise InvalidRequest(
            "record lies outside the server's folder.",
            hint="Choose a path below the folder in which the server was started.",
            details={"config.record": "must lie below the server's folder"},
        )
    return path


async def to_replay(record: str | None, mode: str) -> Contents | None:
    """Return the run that a session bound to ``record`` replays, or ``None`` when it records.

    :class:`~cambio_lab.errors.RecordingMissing` in mode ``none`` when there is no file,
    :class:`~cambio_lab.errors.BundleRefused` when it is damaged or hostile.
    """
    if not record:
        return None
    path = await asyncio.to_thread(place, record)
    if mode == "all":
        return None
    if not await asyncio.to_thread(path.exists):
        if mode == "none":
            raise RecordingMissing(
                f"There is no recording {path.name}.", hint="Run once with record_mode `once` or `all` to make it."
            )
        return None
    return await asyncio.to_thread(run_file.unpack, path)


async def keep(store: Store, session_id: str, record: str) -> Path:
    """Write a session's run to the file that it is bound to."""
    path = await asyncio.to_thread(place, record)
    contents = await collect(store, session_id)
    await asyncio.to_thread(run_file.save, contents, path)
    return path


async def fork_point(store: Store, run: str, step: int | None) -> ForkPoint:
    """Return the point after ``step`` of a run, or its end.

    ``run`` is a session's id in this store, or a ``.cambio`` file below the working directory.
    """
    if run.endswith(SUFFIX):
        path = await asyncio.to_thread(place, run)
        contents = await asyncio.to_thread(run_file.unpack, path)
    else:
        contents = await collect(store, run)
    return await asyncio.to_thread(ForkPoint.at_step, contents, step)


@dataclass(frozen=True)
class ForkPoint:
    """``history`` is the conversation up to and with step ``step``, as Messages API messages, every call answered."""

    contents: Contents
    step: int | None
    history: list[Json]

    @classmethod
    def at_step(cls, contents: Contents, step: int | None) -> ForkPoint:
        """Return the point after ``step``, 0 for the beginning, ``None`` for the end of the conversation.

        :class:`InvalidRequest` without such a step.
        """
        if step is None:
            return cls(contents, None, close_open_batch(contents.conversation()))
        if step == 0:
            return cls(contents, 0, [])
        row = next((row for row in contents.steps if row["step"] == step), None)
        if row is None:
            raise InvalidRequest(
                f"The run has no step {step}.",
                hint=f"It has {len(contents.steps)}.",
                details={"step": f"must be 0 to {len(contents.steps)}"},
            )
        if row.get("actor") == "human":  # the agent was not told of it by a call
            before = [one for one in contents.steps if one["step"] < step and one.get("actor") != "human"]
            return cls(contents, step, _history(contents, before[-1]) if before else [])
        return cls(contents, step, _history(contents, row))

    async def bring(self, desktop: Desktop) -> DesktopReplay:
        """Perform the actions up to the step on a fresh desktop; differences are reported and do not end it."""
        return await replay_on(self.contents, desktop, stop_at_first=False, last_step=self.step)


def _history(contents: Contents, row: Json) -> list[Json]:
    """Return the conversation of the request that followed the step; else what there was in the end."""
    wanted = row["tool_use_id"]
    answer = f'"tool_use_id":{json.dumps(wanted)}'.encode()
    body = next((body for body in contents.bodies() if answer in body), None)
    if body is None:
        return _cut(contents.conversation(), wanted)
    return _cut(conversation(expand(body, contents.find)), wanted)


def _cut(messages: list[Json], wanted: str) -> list[Json]:
    """The messages up to the batch of the call ``wanted``; calls after it in its batch count as not executed."""
    for index, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        ids = [block["id"] for block in blocks if block.get("type") == "tool_use"]
        if wanted not in ids:
            continue
        if index + 1 == len(messages):
            return close_open_batch(messages)
        done = set(ids[: ids.index(wanted) + 1])
        results = [block for block in messages[index + 1]["content"] if block.get("type") == "tool_result"]
        kept = [
            block
            if block["tool_use_id"] in done
            else unexecuted(block["tool_use_id"], block.get("toolset_name"), ENDED_EARLY)
            for block in results
        ]
        return [*messages[: index + 1], {"role": "user", "content": kept}]
    raise InvalidRequest("The conversation no longer contains this step: it was cleared or summarised.")
