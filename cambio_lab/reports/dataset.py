"""Runs as Parquet for training and analysis: a row for each step, or for each run a conversation.

Screenshots are bytes as ``datasets`` keeps images; pandas, polars and DuckDB read them as a struct. Needs pyarrow (the
``dataset`` extra). Rows are written in groups, so that memory does not grow with the number of runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..recording import SUFFIXES, Json
from ..recording.rows import points
from .atif import replies

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
        _write(pa, target, kinds, (row for run in runs for row in step_rows(run)), dict.fromkeys(_IMAGES, _IMAGE))


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
        _write(pa, target, kinds, map(conversation, runs), {"images": [_IMAGE]})


_IMAGE = {"_type": "Image"}


def to_dataset(runs: Sequence[Run], path: str | Path, *, messages: bool = False) -> Path:
    """Write ``runs`` to the Parquet file ``path``: a row for each step, or with ``messages`` for each run."""
    exporter = MessagesExporter() if messages else DatasetExporter()
    exporter.write(runs, Path(path))
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
            row = {
                name: call[name] for name in ("turn", "step", "actor", "action", "status", "approval", "human_input")
            }
            row |= {name: call[name] for name in (*_TOKENS, *_TIMES, "cost_usd")}
            row |= {"instruction": prompts[reply.turn - 1] if 0 < reply.turn <= len(prompts) else shown}
            row |= {"thought": reply.thought if number == 0 else "", "text": call["said"], "result": call["text"]}
            row |= {"arguments": json.dumps(arguments, ensure_ascii=False), "element": _element(arguments, elements)}
            row |= {"started_at": round(call["started_at"] * 1e6), **_places(call, *size)}
            after = call["screenshot"]
            row |= {"screenshot_before": _screenshot(run, before), "screenshot_after": _screenshot(run, after)}
            row |= {
                "unseen_screenshot": _screenshot(run, call["unseen_screenshot"]),
                "unseen_tree": call["unseen_tree"],
            }
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
    found = points(call["arguments"])
    ends = [("", found[-1])] if found else []
    ends += [("start_", found[0])] if len(found) == 2 else []
    places: Json = {}
    for name, (x, y) in ends:
        places |= {f"{name}x": x, f"{name}y": y, f"{name}x_normalised": x / width, f"{name}y_normalised": y / height}
    return places


def _element(arguments: Json, known: dict[str, str]) -> str | None:
    """Return what a browser action names in place of coordinates, as the page was last read: ``button "Send"``."""
    target = arguments.get("target")
    named = arguments.get("ref") or (target.get("ref") if isinstance(target, dict) else None)
    return known.get(str(named), str(named)) if named else None


def _write(pa: Any, target: Path, kinds: dict[str, Any], rows: Iterator[Json], features: Json) -> None:
    import pyarrow.parquet as parquet

    # `datasets` shows these columns as images, and takes the others as they are
    known = {name: features.get(name) or _feature(pa, kind) for name, kind in kinds.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": known}})}
    schema = pa.schema(list(kinds.items()), metadata=metadata)
    with parquet.ParquetWriter(target, schema, compression="zstd", use_dictionary=_TEXTS) as writer:
        while group := list(islice(rows, GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _feature(pa: Any, kind: Any) -> Any:
    if pa.types.is_list(kind):
        return [_feature(pa, kind.value_type)]
    if pa.types.is_struct(kind):
        return {item.name: _feature(pa, item.type) for item in kind}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ConfigurationError(
            "Datasets need pyarrow.", hint='Install it with: pip install "cambio-lab[dataset]".'
        ) from None
    return pyarrow
