"""A run as an inspect_ai evaluation log (format version 2): one sample, its messages, its usage."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...recording.contents import Json
from . import only

if TYPE_CHECKING:
    from ..run import Run


class InspectExporter:
    """A log for ``inspect view``."""

    summary = "an inspect_ai evaluation log"
    suffixes = (".json",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        inspect_log(only(runs), target)


def inspect_log(run: Run, path: Path | None = None) -> Json:
    """The log; written to ``path`` (``.json``) if given."""
    session, environment = run.manifest["session"], run.manifest.get("environment", {})
    messages = _messages(run.messages)
    usage = _usage(run)
    failed = any(event["kind"] == "TurnFailed" for event in run.contents.events)
    started = _time(session.get("created_at"))
    ended = _time(session.get("ended_at") or session.get("created_at"))
    sample = {
        "id": run.id,
        "epoch": 1,
        "input": "\n\n".join(run.prompts),
        "target": "",
        "messages": messages,
        "output": {
            "model": run.model,
            "choices": [
                {
                    "message": {"role": "assistant", "content": run.answers[-1] if run.answers else ""},
                    "stop_reason": "unknown" if failed else "stop",
                }
            ],
            "usage": usage,
        },
        "scores": {},
        "metadata": {"cambio_lab": run.manifest["counts"], "config": run.manifest.get("config", {})},
        "store": {},
        "events": [],
        "model_usage": {run.model: usage},
        "total_time": run.seconds,
    }
    log: Json = {
        "version": 2,
        "status": "error" if failed else "success",
        "eval": {
            "eval_id": run.id,
            "run_id": run.id,
            "created": started,
            "task": run.name or "cambio_lab",
            "task_id": run.id,
            "task_version": 0,
            "task_attribs": {},
            "task_args": {},
            "dataset": {"name": "cambio_lab", "samples": 1, "sample_ids": [run.id], "shuffled": False},
            "model": run.model,
            "model_args": {},
            "config": {},
            "packages": {name: environment.get(name, "") for name in ("cambio_lab", "anthropic")},
            "metadata": {"desktop": run.manifest.get("desktop", {})},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {"total_samples": 1, "completed_samples": 0 if failed else 1, "scores": []},
        "stats": {"started_at": started, "completed_at": ended, "model_usage": {run.model: usage}},
        "samples": [sample],
    }
    if path is not None:
        path.write_text(json.dumps(log, ensure_ascii=False), encoding="utf-8")
    return log


def _messages(conversation: list[Json]) -> list[Json]:
    result: list[Json] = []
    names: dict[str, str] = {}
    for number, message in enumerate(conversation):
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if message["role"] == "assistant":
            calls = [block for block in blocks if block["type"] == "tool_use"]
            names |= {call["id"]: call["name"] for call in calls}
            said: Json = {"id": f"m{number}", "role": "assistant", "content": _parts(blocks), "source": "generate"}
            if calls:
                said["tool_calls"] = [
                    {"id": call["id"], "function": call["name"], "arguments": call["input"], "type": "function"}
                    for call in calls
                ]
            result.append(said)
            continue
        for block in blocks:
            if block["type"] == "tool_result":
                result.append(_tool_message(f"m{number}-{block['tool_use_id']}", block, names))
        rest = [block for block in blocks if block["type"] != "tool_result"]
        if rest:
            result.append({"id": f"m{number}", "role": "user", "content": _parts(rest), "source": "input"})
    return result


def _tool_message(identity: str, block: Json, names: dict[str, str]) -> Json:
    content: Any = block.get("content") or ""
    message: Json = {
        "id": identity,
        "role": "tool",
        "content": content if isinstance(content, str) else _parts(content),
        "tool_call_id": block["tool_use_id"],
        "function": names.get(block["tool_use_id"], ""),
    }
    if block.get("is_error"):
        words = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
        message["error"] = {"type": "unknown", "message": words}
    return message


def _parts(blocks: list[Json]) -> list[Json]:
    parts = []
    for block in blocks:
        if block["type"] == "text":
            parts.append({"type": "text", "text": block["text"]})
        elif block["type"] == "thinking":
            parts.append({"type": "reasoning", "reasoning": block["thinking"], "signature": block.get("signature")})
        elif block["type"] == "image" and block["source"].get("type") == "base64":
            source = block["source"]
            parts.append({"type": "image", "image": f"data:{source['media_type']};base64,{source['data']}"})
    return parts


def _usage(run: Run) -> Json:
    usage = run.usage
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens + read + written,
        "input_tokens_cache_read": read,
        "input_tokens_cache_write": written,
        "reasoning_tokens": usage.thinking_tokens,
    }


def _time(seconds: float | None) -> str:
    return datetime.datetime.fromtimestamp(seconds or 0.0, datetime.UTC).isoformat()
