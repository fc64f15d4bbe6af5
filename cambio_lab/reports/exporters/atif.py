"""A run in the Agent Trajectory Interchange Format (Harbor's), version 1.8."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...events import Usage
from ...recording import SUFFIXES, Json
from ...recording.rows import describe
from ..replies import Reply, replies
from . import only

if TYPE_CHECKING:
    from ..run import Run

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
