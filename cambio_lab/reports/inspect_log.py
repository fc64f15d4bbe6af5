"""Runs as an inspect_ai evaluation log (format version 2), for ``inspect view`` and its data frames.

``.eval`` needs the ``inspect`` extra, because the package itself writes it; ``.json`` does not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..events import Usage
from ..recording import Json
from .inspect_sample import Transcript, error_json, time_text, usage_json

if TYPE_CHECKING:
    from .run import Run

_LIMITS = {"max_steps": "turn", "max_cost_usd": "cost", "max_tokens": "token", "max_seconds": "time"}


class InspectExporter:
    """One sample a run. Runs of several models make one log, whose samples name theirs."""

    summary = "an inspect_ai log, one sample a run; .eval needs cambio-lab[inspect]"
    suffixes = (".eval", ".json")

    def write(self, runs: Sequence[Run], target: Path) -> None:
        log = inspect_log(runs)
        if target.is_dir():
            target = target / _file_name(log)
        if target.suffix == ".json":
            target.write_text(json.dumps(log, ensure_ascii=False), encoding="utf-8")
            return
        try:
            from inspect_ai.log import EvalLog, write_eval_log
        except ImportError:
            raise ConfigurationError(
                ".eval files need inspect_ai.", hint='Install it with: pip install "cambio-lab[inspect]".'
            ) from None
        made = EvalLog.model_validate(log)
        with ThreadPoolExecutor(1) as thread:  # it runs an event loop, and a notebook has one here
            thread.submit(write_eval_log, made, str(target)).result()


def _file_name(log: Json) -> str:
    parts = (log["eval"]["created"], log["eval"]["task"], log["eval"]["task_id"])
    return "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part) for part in parts) + ".eval"


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
    answer = {"role": "assistant", "content": run.answers[-1] if run.answers else ""}
    stop = "unknown" if failure else "stop"
    output = {"model": run.model, "choices": [{"message": answer, "stop_reason": stop}]}
    usage, result = usage_json(run.usage), run.result
    limit, scores = _limit(run), _scores(run)
    events = transcript.events
    if limit:
        events = [*events, _late(run, {"event": "sample_limit", **limit, "message": limit["reason"]})]
    events += [_late(run, {"event": "score", "score": score, "scorer": name}) for name, score in scores.items()]
    sample: Json = {
        "id": run.id if result is None else result.sample_id,
        "epoch": 1 if result is None else result.repeat + 1,
        "uuid": run.id,
        "input": "\n\n".join(run.prompts),
        "target": "",
        "messages": transcript.messages,
        "output": output | {"usage": usage},
        "scores": scores,
        "metadata": {"model": run.model, "name": run.name, "config": run.manifest.get("config", {})},
        "events": events,
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


def _late(run: Run, event: Json) -> Json:
    return {"timestamp": time_text(_ended(run)), "working_start": run.seconds} | event


def _scores(run: Run) -> Json:
    result = run.result
    if result is None or result.success is None:
        return {}
    words = {"answer": run.answers[-1] if run.answers else "", "explanation": result.reason}
    return {
        "success": {"value": "C" if result.success else "I", **words},
        "score": {"value": float(result.score or 0.0), **words},
    }


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
    found: dict[str, list[float]] = {}
    for sample in samples:
        for name, score in sample["scores"].items():
            value = score["value"]
            found.setdefault(name, []).append(float(value == "C") if isinstance(value, str) else value)
    names = {"success": "accuracy", "score": "mean"}
    return [
        {
            "name": name,
            "scorer": name,
            "scored_samples": len(values),
            "unscored_samples": len(samples) - len(values),
            "metrics": {names[name]: {"name": names[name], "value": sum(values) / len(values)}},
        }
        for name, values in found.items()
    ]


def _created(run: Run) -> float:
    return float(run.manifest["session"].get("created_at") or 0.0)


def _ended(run: Run) -> float:
    return float(run.manifest["session"].get("ended_at") or _created(run))
