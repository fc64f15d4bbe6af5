"""A run reply by reply: what the model thought and said, its calls and their results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..events import Usage
from ..recording import Json
from ..recording.rows import usage_of

if TYPE_CHECKING:
    from .run import Run


@dataclass
class Reply:
    """One reply of the model in turn ``turn`` (from 1), whole at ``time`` (epoch seconds).

    With ``human`` it is what a person did on the desktop from ``time`` on, and nothing was said.
    """

    turn: int
    time: float
    model_ms: float
    text: str
    usage: Usage
    thought: str = ""
    human: bool = False
    calls: list[Json] = field(default_factory=list)
    """The rows of its calls, as in ``run.rows``, each with ``id``, ``size``, ``human_input`` and ``approval``.

    ``size`` is that of its screenshot, zero without one. ``human_input`` says that a person used the desktop since the
    call before. ``approval`` is a person's verdict or empty.
    """


def replies(run: Run) -> list[Reply]:
    """Return the replies in order; a call that was denied or not executed has no row."""
    rows = {
        step["tool_use_id"]: {**row, "size": (step.get("width", 0), step.get("height", 0))}
        for step, row in zip(run.contents.steps, run.rows, strict=True)
    }
    found: list[Reply] = []
    verdicts: dict[str, str] = {}
    seen: set[str] = set()
    turn, touched = 0, False
    current: Reply | None = None
    for event in run.contents.events:
        match event["kind"]:
            case "UserMessage":
                turn += 1
            case "ModelReplied":
                usage = usage_of(event["usage"])
                current = Reply(turn, event["time"], event["model_ms"], event["text"], usage)
                found.append(current)
            case "HumanInput":
                touched = True
            case "ApprovalDecided":
                verdicts[event["tool_use_id"]] = event["verdict"]
            case "ToolFinished" if event["tool_use_id"] in rows and event["tool_use_id"] not in seen:
                by = _by_a_person(found, turn, event["time"]) if event.get("actor") == "human" else current
                if by is None:
                    continue
                call = event["tool_use_id"]
                seen.add(call)
                extra = {"id": call, "human_input": touched, "approval": verdicts.get(call, "")}
                by.calls.append({**rows[call], **extra})
                touched = False
    _add_thoughts([reply for reply in found if not reply.human], run.contents.exchanges)
    return found


def _by_a_person(found: list[Reply], turn: int, time: float) -> Reply:
    """Return where to add a step that a person made: a person's steps in a row are one."""
    if not found or not found[-1].human or found[-1].turn != turn:
        found.append(Reply(turn, time, 0.0, "", Usage(), human=True))
    return found[-1]


def _add_thoughts(found: Sequence[Reply], exchanges: Sequence[Json]) -> None:
    """Fill in ``thought`` from the recorded replies: those of the conversation may have been summarised since."""
    waiting = iter(found)
    reply = next(waiting, None)
    for exchange in exchanges:
        if reply is None:
            return
        text, thought, calls = _parse(exchange.get("response"))
        first = reply.calls[0]["id"] if reply.calls else None
        if text == reply.text and (first is None or first in calls):
            reply.thought = thought
            reply = next(waiting, None)


def _parse(response: object) -> tuple[str, str, list[str]]:
    """Return text, thought and the ids of the calls in a recorded stream."""
    text, thought, calls = [], [], []
    for event in _events(response):
        delta, block = event.get("delta"), event.get("content_block")
        if isinstance(delta, dict):
            text.append(str(delta.get("text", "")))
            thought.append(str(delta.get("thinking", "")))
        if isinstance(block, dict) and block.get("type") == "tool_use":
            calls.append(str(block.get("id")))
    return "".join(text), "".join(thought), calls


def _events(response: object) -> Iterator[Json]:
    for line in response.splitlines() if isinstance(response, str) else ():
        if line.startswith("data:"):
            try:
                event = json.loads(line[5:])
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                yield event
