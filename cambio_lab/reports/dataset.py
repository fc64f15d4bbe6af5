"""Runs reply by reply, and as Parquet for training and analysis: a row a step, or a conversation a run.

Screenshots are bytes as ``datasets`` keeps images; pandas, polars and DuckDB read them as a struct. Needs pyarrow (the
``dataset`` extra). Rows are written in groups, so that memory does not grow with the number of runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import load_optional
from ..events import Usage
from ..recording import SUFFIXES, Json
from ..recording.rows import points, usage_of

if TYPE_CHECKING:
    from .run import Run

GROUP_ROWS = 200
_TEXTS = [
    *("run", "name", "task", "setting", "model", "instruction", "thought", "text", "actor", "action", "arguments"),
    *("element", "result", "status", "approval", "unseen_tree"),
]
_COUNTS = ["repeat", "turn", "step", "screen_width", "screen_height", "start_x", "start_y", "x", "y"]
_TOKENS = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "thinking_tokens"]
_NUMBERS = ["score", "start_x_normalised", "start_y_normalised", "x_normalised", "y_normalised", "cost_usd"]
_TIMES = ["model_ms", "action_ms", "settle_ms", "encode_ms", "total_ms"]
_COPIED = ["turn", "step", "actor", "action", "status", "approval", "human_input", "unseen_tree", "cost_usd"]
_IMAGES = ["screenshot_before", "screenshot_after", "unseen_screenshot"]
_REFERENCE = re.compile(r"^[ \t-]*(\w[^\n\[]{0,200}?) *\[(ref_\d{1,9})\]", re.M)
"""A line of a page as the agent read it: role, name and reference of an element."""


class DatasetExporter:
    """One row a step."""

    summary = "Parquet, one row a step, screenshots included; needs cambio-lab[dataset]"
    suffixes = (".parquet",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        pa = _pyarrow()
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        kinds: dict[str, Any] = dict.fromkeys(_TEXTS, pa.string())
        kinds |= dict.fromkeys([*_COUNTS, *_TOKENS], pa.int64())
        kinds |= dict.fromkeys([*_NUMBERS, *_TIMES], pa.float64())
        kinds |= {"success": pa.bool_(), "human_input": pa.bool_(), "started_at": pa.timestamp("us", tz="UTC")}
        kinds |= dict.fromkeys(_IMAGES, image)
        _write(pa, target, kinds, (row for run in runs for row in step_rows(run)))


class MessagesExporter:
    """One conversation a run, as fine-tuning takes it."""

    summary = "Parquet, one conversation a run with its images; needs cambio-lab[dataset]"
    suffixes = (".messages.parquet",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        pa = _pyarrow()
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        part = pa.struct([("type", pa.string()), ("text", pa.string())])
        message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
        kinds = {"run": pa.string(), "model": pa.string(), "success": pa.bool_()}
        kinds |= {"messages": pa.list_(message), "images": pa.list_(image)}
        _write(pa, target, kinds, map(conversation, runs))


def to_dataset(runs: Sequence[Run], path: str | Path, *, messages: bool = False) -> Path:
    """Write ``runs`` to the Parquet file ``path``: a row for each step, or with ``messages`` for each run."""
    (MessagesExporter() if messages else DatasetExporter()).write(runs, Path(path))
    return Path(path)


def step_rows(run: Run) -> Iterator[Json]:
    """Yield a row for each step; docs/runs.md lists the columns."""
    width, height = run.manifest.get("desktop", {}).get("display") or (1280, 800)
    result, before, prompts = run.result, None, run.prompts
    elements: dict[str, str] = {}
    shown = "" if prompts else run.name  # a demonstration is named after its task
    size = (width, height)  # coordinates are those of the last screenshot: of the screen, reduced, or of a page
    facts: Json = {"run": run.id, "name": run.name, "model": run.model, "screen_width": width, "screen_height": height}
    if result is not None:
        facts |= {name: getattr(result, name) for name in ("task", "setting", "repeat", "success", "score")}
    for reply in replies(run):
        for number, call in enumerate(reply.calls):
            arguments = call["arguments"]
            row = {name: call[name] for name in (*_COPIED, *_TOKENS, *_TIMES)}
            row |= {"instruction": prompts[reply.turn - 1] if 0 < reply.turn <= len(prompts) else shown}
            row |= {"thought": reply.thought if number == 0 else "", "text": call["said"], "result": call["text"]}
            row |= {"arguments": json.dumps(arguments, ensure_ascii=False), "element": _element(arguments, elements)}
            row |= {"started_at": round(call["started_at"] * 1e6), **_places(call, *size)}
            after = call["screenshot"]
            row |= {"screenshot_before": _screenshot(run, before), "screenshot_after": _screenshot(run, after)}
            row |= {"unseen_screenshot": _screenshot(run, call["unseen_screenshot"])}
            before, size = after or before, call["size"] if all(call["size"]) else size
            elements |= {found[2]: found[1] for found in _REFERENCE.finditer(call["text"])}
            yield facts | row


def conversation(run: Run) -> Json:
    """Return the run's messages with ``image`` parts in place of screenshots, and those in the order of the parts."""
    images: list[Json] = []
    messages = []
    for message in run.contents.messages:
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        parts = [part for block in blocks for part in _parts(run, block, images)]
        role = "tool" if any(block["type"] == "tool_result" for block in blocks) else message["role"]
        messages.append({"role": role, "content": parts})
    success = None if run.result is None else run.result.success
    return {"run": run.id, "model": run.model, "success": success, "messages": messages, "images": images}


def _parts(run: Run, block: Json, images: list[Json]) -> list[Json]:
    match block["type"]:
        case "text":
            return [{"type": "text", "text": block["text"]}]
        case "thinking":
            return [{"type": "thinking", "text": block["thinking"]}]
        case "tool_use":
            call = {"id": block["id"], "name": block["name"], "arguments": block["input"]}
            return [{"type": "tool_call", "text": json.dumps(call, ensure_ascii=False)}]
        case "tool_result":
            content = block.get("content") or []
            inner = content if isinstance(content, list) else [{"type": "text", "text": content}]
            return [part for item in inner for part in _parts(run, item, images)]
        case "image" if image := _screenshot(run, block["source"].get("sha256")):
            images.append(image)
            return [{"type": "image", "text": None}]
    return []


def _screenshot(run: Run, digest: str | None) -> Json | None:
    data = run.contents.find(digest) if digest else None
    suffix = SUFFIXES[run.contents.screenshots.get(digest or "", "image/png")]
    return None if data is None else {"bytes": data, "path": f"{digest}{suffix}"}


def _places(call: Json, width: int, height: int) -> Json:
    places: Json = {}
    for name, (x, y) in zip(("", "start_"), reversed(points(call["arguments"])), strict=False):
        places |= {f"{name}x": x, f"{name}y": y, f"{name}x_normalised": x / width, f"{name}y_normalised": y / height}
    return places


def _element(arguments: Json, known: dict[str, str]) -> str | None:
    """Return what a browser action names in place of coordinates, as the page was last read: ``button "Send"``."""
    target = arguments.get("target")
    named = arguments.get("ref") or (target.get("ref") if isinstance(target, dict) else None)
    return known.get(str(named), str(named)) if named else None


def _write(pa: Any, target: Path, kinds: dict[str, Any], rows: Iterator[Json]) -> None:
    import pyarrow.parquet as parquet

    features = {name: _feature(pa, kind) for name, kind in kinds.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(list(kinds.items()), metadata=metadata)
    with parquet.ParquetWriter(target, schema, compression="zstd", use_dictionary=_TEXTS) as writer:
        while group := list(islice(rows, GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _feature(pa: Any, kind: Any) -> Any:
    """Return what `datasets` is told of a column: it shows structs with ``bytes`` as images."""
    if pa.types.is_list(kind):
        return [_feature(pa, kind.value_type)]
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {item.name: _feature(pa, item.type) for item in kind}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def _pyarrow() -> Any:
    return load_optional("pyarrow", "Datasets need pyarrow.", 'Install it with: pip install "cambio-lab[dataset]".')


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
                current = Reply(turn, event["time"], event["model_ms"], event["text"], usage_of(event["usage"]))
                found.append(current)
            case "HumanInput":
                touched = True
            case "ApprovalDecided":
                verdicts[event["tool_use_id"]] = event["verdict"]
            case "ToolFinished" if event["tool_use_id"] in rows and event["tool_use_id"] not in seen:
                by = current
                if event.get("actor") == "human":  # a person's steps in a row are one
                    if not found or not found[-1].human or found[-1].turn != turn:
                        found.append(Reply(turn, event["time"], 0.0, "", Usage(), human=True))
                    by = found[-1]
                if by is None:
                    continue
                call = event["tool_use_id"]
                seen.add(call)
                by.calls.append({**rows[call], "id": call, "human_input": touched, "approval": verdicts.get(call, "")})
                touched = False
    _add_thoughts([reply for reply in found if not reply.human], run.contents.exchanges)
    return found


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
    for line in response.splitlines() if isinstance(response, str) else ():
        event: Any = None
        if line.startswith("data:"):
            with suppress(ValueError, RecursionError):
                event = json.loads(line[5:])
        if not isinstance(event, dict):
            continue
        delta, block = event.get("delta"), event.get("content_block")
        if isinstance(delta, dict):
            text.append(str(delta.get("text", "")))
            thought.append(str(delta.get("thinking", "")))
        if isinstance(block, dict) and block.get("type") == "tool_use":
            calls.append(str(block.get("id")))
    return "".join(text), "".join(thought), calls
