"""What a session starts from: a run file that it is bound to, with VCR's modes, or a point in another run.

``once`` (the default) replays when the file is there and records otherwise, ``none`` only replays, ``all`` records
again. The file is written when the session ends.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from ..agent.tools import ENDED_EARLY
from ..agent.transcript import close_open_batch, unexecuted
from ..desktop.base import Desktop
from ..errors import InvalidRequest, RecordingMissing
from ..recording import Contents, Json, expand, run_file
from ..recording.collect import collect
from ..store import Store
from . import requests
from .desktop_replay import DesktopReplay, replay_on

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
    return _cut(requests.conversation(expand(body, contents.find)), wanted)


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
