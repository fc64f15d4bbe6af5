"""A run reply by reply, and in the Agent Trajectory Interchange Format (Harbor's), version 1.8."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..events import Usage
from ..recording import SUFFIXES, Json
from ..recording.rows import describe, usage_of
from . import only

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


VERSION = "ATIF-v1.8"


class AtifExporter:
    """A JSON document; screenshots are files in a folder beside it."""

    summary = "an ATIF trajectory (Harbor); its images lie in a folder beside it"
    suffixes = (".atif.json", ".json")

    def write(self, runs: Sequence[Run], target: Path) -> None:
        run = only(runs)
        folder = target.with_name(f"{target.name.split('.')[0]}_images")
        folder.mkdir(parents=True, exist_ok=True)
        for digest, media_type in run.contents.screenshots.items():
            if (data := run.contents.find(digest)) is not None:
                (folder / f"{digest}{SUFFIXES[media_type]}").write_bytes(data)
        target.write_text(json.dumps(atif(run, folder.name), ensure_ascii=False, indent=1), encoding="utf-8")


def atif(run: Run, images: str = "images") -> Json:
    """Return the trajectory; paths of screenshots begin with ``images``."""
    steps = [step | {"step_id": number} for number, (_, step) in enumerate(_steps(run, images), 1)]
    environment = run.manifest.get("environment", {})
    usage = run.usage
    result = run.result
    extra = {} if result is None else {"task": result.task, "success": result.success, "score": result.score}
    return {
        "schema_version": VERSION,
        "session_id": run.id,
        "agent": {
            "name": "cambio_lab",
            "version": environment.get("cambio_lab") or "unknown",
            "model_name": run.model,
            "extra": {"config": run.manifest.get("config", {}), "desktop": run.manifest.get("desktop", {})},
        },
        "steps": steps,
        "final_metrics": {
            "total_prompt_tokens": _prompt_tokens(usage),
            "total_completion_tokens": usage.output_tokens,
            "total_cached_tokens": usage.cache_read_input_tokens,
            "total_cost_usd": usage.cost_usd,
            "total_steps": len(steps),
        },
        "extra": {"name": run.name, "complete": run.complete, **extra},
    }


def _steps(run: Run, images: str) -> list[tuple[float, Json]]:
    """Return user messages, replies with their results, and what people and failures did, by time."""
    found = [(reply.time, (_person if reply.human else _agent)(run, reply, images)) for reply in replies(run)]
    for event in run.contents.events:
        if event["kind"] in ("UserMessage", "MessageDelivered"):
            found.append((event["time"], {"source": "user", "message": event["content"]}))
        elif event["kind"] == "HumanInput":
            found.append((event["time"], {"source": "system", "message": "A person used the desktop."}))
        elif event["kind"] == "TurnFailed":
            found.append((event["time"], {"source": "system", "message": f"{event['error']} {event['details']}"}))
    ordered = sorted(found, key=lambda item: item[0])
    return [(time, step | {"timestamp": _time(time)}) for time, step in ordered]


def _person(run: Run, reply: Reply, images: str) -> Json:
    """What a person did; only an agent's steps have calls."""
    done = "; ".join(describe(call["action"], call["arguments"]) for call in reply.calls)
    return {"source": "system", "message": f"A person: {done}"}


def _agent(run: Run, reply: Reply, images: str) -> Json:
    usage = reply.usage
    step: Json = {
        "source": "agent",
        "model_name": run.model,
        "message": reply.text,
        "llm_call_count": 1,
        "metrics": {
            "prompt_tokens": _prompt_tokens(usage),
            "completion_tokens": usage.output_tokens,
            "cached_tokens": usage.cache_read_input_tokens,
            "cost_usd": usage.cost_usd,
            "extra": {"reasoning_tokens": usage.thinking_tokens, "model_ms": reply.model_ms},
        },
    }
    if reply.thought:
        step["reasoning_content"] = reply.thought
    if reply.calls:
        step["tool_calls"] = [
            {"tool_call_id": call["id"], "function_name": call["action"], "arguments": call["arguments"]}
            for call in reply.calls
        ]
        step["observation"] = {"results": [_result(run, call, images) for call in reply.calls]}
    return step


def _result(run: Run, call: Json, images: str) -> Json:
    content: Any = call["text"]
    media_type = run.contents.screenshots.get(call["screenshot"] or "")
    if media_type:
        source = {"media_type": media_type, "path": f"{images}/{call['screenshot']}{SUFFIXES[media_type]}"}
        text = [{"type": "text", "text": call["text"]}] if call["text"] else []
        content = [*text, {"type": "image", "source": source}]
    extra = {"status": call["status"], "total_ms": call["total_ms"], "human_input": call["human_input"]}
    return {"source_call_id": call["id"], "content": content, "extra": extra}


def _prompt_tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()
