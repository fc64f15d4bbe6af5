"""Runs as trajectories of other tools: inspect_ai's evaluation log (format version 2), and ATIF 1.8 (Harbor's).

``.eval`` needs the ``inspect`` extra, because the package itself writes it; ``.json`` does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import load_optional
from ..events import Usage
from ..recording import SUFFIXES, Json
from ..recording.rows import describe
from . import only, time_text
from .dataset import Reply, replies
from .inspect_sample import Transcript, error_json, usage_json

if TYPE_CHECKING:
    from .run import Run

_LIMITS = {"max_steps": "turn", "max_cost_usd": "cost", "max_tokens": "token", "max_seconds": "time"}
ATIF_VERSION = "ATIF-v1.8"


class InspectExporter:
    """One sample a run. Runs of several models make one log, whose samples name theirs."""

    summary = "an inspect_ai log, one sample a run; .eval needs cambio-lab[inspect]"
    suffixes = (".eval", ".json")

    def write(self, runs: Sequence[Run], target: Path) -> None:
        log = inspect_log(runs)
        if target.is_dir():
            parts = (log["eval"]["created"], log["eval"]["task"], log["eval"]["task_id"])
            target /= "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part) for part in parts) + ".eval"
        if target.suffix == ".json":
            target.write_text(json.dumps(log, ensure_ascii=False), encoding="utf-8")
            return
        hint = 'Install it with: pip install "cambio-lab[inspect]".'
        inspect = load_optional("inspect_ai.log", ".eval files need inspect_ai.", hint)
        made = inspect.EvalLog.model_validate(log)
        with ThreadPoolExecutor(1) as thread:  # it runs an event loop, and a notebook has one here
            thread.submit(inspect.write_eval_log, made, str(target)).result()


def inspect_log(runs: Sequence[Run]) -> Json:
    """Return the log as JSON. With results of an experiment, tasks are samples and repeats are epochs."""
    first, samples = runs[0], [_sample(run) for run in runs]
    models = list(dict.fromkeys(run.model for run in runs))
    started = time_text(min(_created(run) for run in runs))
    ended = time_text(max(_ended(run) for run in runs))
    failed = [sample for sample in samples if "error" in sample]
    identities = list(dict.fromkeys(sample["id"] for sample in samples))
    name = first.result.experiment if first.result is not None else first.name
    usages = {model: usage_json(sum((run.usage for run in runs if run.model == model), Usage())) for model in models}
    environment = first.manifest.get("environment", {})
    return {
        "version": 2,
        "status": "error" if len(runs) == 1 and failed else "success",
        "eval": {
            "eval_id": first.id,
            "run_id": first.id,
            "created": started,
            "task": name or "cambio_lab",
            "task_id": first.id,
            "dataset": {"name": name, "samples": len(identities), "sample_ids": identities, "shuffled": False},
            "model": models[0] if len(models) == 1 else " + ".join(models),
            "config": {"epochs": max(sample["epoch"] for sample in samples)},
            "packages": {package: environment.get(package, "") for package in ("cambio_lab", "anthropic")},
            "metadata": {"desktop": first.manifest.get("desktop", {}), "options": environment.get("options")},
        },
        "plan": {"steps": [{"solver": "cambio_lab", "params": first.manifest.get("config", {})}]},
        "results": {
            "total_samples": len(samples),
            "completed_samples": len(samples) - len(failed),
            "scores": _metrics(samples),
        },
        "stats": {"started_at": started, "completed_at": ended, "model_usage": usages},
        "samples": samples,
        **({"error": failed[0]["error"]} if len(runs) == 1 and failed else {}),
    }


def _sample(run: Run) -> Json:
    transcript = Transcript(run)
    failure = next((event for event in reversed(run.contents.events) if event["kind"] == "TurnFailed"), None)
    said = run.answers[-1] if run.answers else ""
    choice = {"message": {"role": "assistant", "content": said}, "stop_reason": "unknown" if failure else "stop"}
    usage, result = usage_json(run.usage), run.result
    limit, scores = _limit(run), {}
    if result is not None and result.success is not None:
        values = {"success": "C" if result.success else "I", "score": float(result.score or 0.0)}
        words = {"answer": said, "explanation": result.reason}
        scores = {name: {"value": value, **words} for name, value in values.items()}
    late = {"timestamp": time_text(_ended(run)), "working_start": run.seconds}
    limits = [{**late, "event": "sample_limit", **limit, "message": limit["reason"]}] if limit else []
    scored = [{**late, "event": "score", "score": score, "scorer": name} for name, score in scores.items()]
    sample: Json = {
        "id": run.id if result is None else result.sample_id,
        "epoch": 1 if result is None else result.repeat + 1,
        "uuid": run.id,
        "input": "\n\n".join(run.prompts),
        "target": "",
        "messages": transcript.messages,
        "output": {"model": run.model, "choices": [choice], "usage": usage},
        "scores": scores,
        "metadata": {"model": run.model, "name": run.name, "config": run.manifest.get("config", {})},
        "events": [*transcript.events, *limits, *scored],
        "events_data": {"messages": transcript.messages, "calls": []},
        "attachments": transcript.attachments,
        "model_usage": {run.model: usage},
        "started_at": time_text(_created(run)),
        "completed_at": time_text(_ended(run)),
        "total_time": run.seconds,
        "working_time": run.seconds,
        **({"limit": limit} if limit else {}),
        **({"error": error_json(failure)} if failure else {}),
    }
    if result is not None:
        sample["metadata"] |= {"task": result.task, "setting": result.setting, "failure": result.failure}
    return sample


def _limit(run: Run) -> Json | None:
    """Return the limit that ended the last turn, or the person who stopped it."""
    end = next((event for event in reversed(run.contents.events) if event["kind"] == "TurnFinished"), {})
    if end.get("stopped"):
        return {"type": "operator", "limit": 0, "reason": "stopped by a person"}
    if not end.get("limit"):
        return None
    options = {**(run.manifest.get("environment", {}).get("options") or {}), **run.manifest.get("config", {})}
    value = options.get(end["limit"])
    number = value if isinstance(value, int | float) else 0
    return {"type": _LIMITS.get(end["limit"], "custom"), "limit": number, "reason": end["limit"]}


def _metrics(samples: Sequence[Json]) -> list[Json]:
    """Return the mean of each score over the samples that have it."""
    found = []
    for name, metric in (("success", "accuracy"), ("score", "mean")):
        given = [sample["scores"][name]["value"] for sample in samples if sample["scores"]]
        values = [float(value == "C") if isinstance(value, str) else value for value in given]
        if values:
            mean = {metric: {"name": metric, "value": sum(values) / len(values)}}
            counts = {"scored_samples": len(values), "unscored_samples": len(samples) - len(values)}
            found.append({"name": name, "scorer": name, **counts, "metrics": mean})
    return found


def _created(run: Run) -> float:
    return float(run.manifest["session"].get("created_at") or 0.0)


def _ended(run: Run) -> float:
    return float(run.manifest["session"].get("ended_at") or _created(run))


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
    steps = [step | {"step_id": number} for number, step in enumerate(_steps(run, images), 1)]
    environment = run.manifest.get("environment", {})
    usage = run.usage
    result = run.result
    extra = {} if result is None else {"task": result.task, "success": result.success, "score": result.score}
    return {
        "schema_version": ATIF_VERSION,
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


def _steps(run: Run, images: str) -> list[Json]:
    """Return user messages, replies with their results, and what people and failures did, by time."""
    found: list[tuple[float, Json]] = []
    for reply in replies(run):
        done = "; ".join(describe(call["action"], call["arguments"]) for call in reply.calls)
        person = {"source": "system", "message": f"A person: {done}"}  # only an agent's steps have calls
        found.append((reply.time, person if reply.human else _agent(run, reply, images)))
    for event in run.contents.events:
        if event["kind"] in ("UserMessage", "MessageDelivered"):
            found.append((event["time"], {"source": "user", "message": event["content"]}))
        elif event["kind"] == "HumanInput":
            found.append((event["time"], {"source": "system", "message": "A person used the desktop."}))
        elif event["kind"] == "TurnFailed":
            found.append((event["time"], {"source": "system", "message": f"{event['error']} {event['details']}"}))
    return [step | {"timestamp": time_text(time)} for time, step in sorted(found, key=lambda item: item[0])]


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
