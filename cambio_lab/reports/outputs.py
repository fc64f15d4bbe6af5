"""Compare an executed notebook with the saved one: outputs but for clocks, durations and identities."""

from __future__ import annotations

import base64
import difflib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_VOLATILE = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b(Session|cambio-run|recording|model_id\W+|IPY_MODEL_)[- ]?[0-9a-f]{6,32}\b"), r"\1 <id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d(:\d\d)?\b"), "<time>"),
    (re.compile(r"https?://(127\.0\.0\.1|localhost):\d+"), "<server>"),
    (re.compile(r"\b0x[0-9a-f]{6,16}\b"), "<address>"),
    (re.compile(r"\b\d[\d,]*(\.\d+)?\s?(ms|s|sec|seconds?|min|minutes?|µs)\b"), "<duration>"),
    (re.compile(r"(?<=processing_time\W{3})\d+(\.\d+)?"), "<duration>"),
    (re.compile(r"\bmsg-<id>"), "<id>"),
)
_WAITED = re.compile(r".+: \d+(\.\d+)? s, \w+", re.S)
_IMAGE = re.compile(r"data:(image/(?:svg\+xml|png|jpeg|webp));base64,([A-Za-z0-9+/=]+)")
IGNORED = frozenset({"application/vnd.jupyter.widget-view+json", "application/javascript"})
"""A widget's view only names a model in a kernel that has ended."""


@dataclass(frozen=True)
class CellReport:
    """One code cell: ``number`` counts the notebook's code cells from 1. ``problem`` is empty when it matches."""

    number: int
    problem: str = ""


def compare(saved: Any, executed: Any) -> list[CellReport]:
    """Return a report for each code cell of the saved notebook."""
    cells, others = ([cell for cell in made.cells if cell.cell_type == "code"] for made in (saved, executed))
    reports, stopped = [], False
    for number, (cell, other) in enumerate(zip(cells, others, strict=True), 1):
        problem = "was not reached" if stopped else _problem(cell, other)
        raised = any(output.output_type == "error" for output in other.outputs)
        stopped = stopped or (raised and "raises-exception" not in other.metadata.get("tags", ()))
        reports.append(CellReport(number, problem))
    return reports


def _problem(cell: Any, other: Any) -> str:
    for output in other.outputs:
        if output.output_type == "error" and not any(o.output_type == "error" for o in cell.outputs):
            said = str(output.evalue)
            asks = said.partition("now asks something that the recording did not")
            if asks[1]:
                return f"now asks something that the recording did not{asks[2]}"
            return f"raises {output.ename}: {said}"
    found = difference(cell.outputs, other.outputs)
    return f"differs: {found}" if found else ""


def difference(saved: Sequence[Any], now: Sequence[Any]) -> str:
    """Return the first difference in words, or nothing."""
    first, second = _flat(saved), _flat(now)
    if len(first) != len(second):
        return f"{len(second)} outputs instead of {len(first)}"
    for (kind, before), (other, after) in zip(first, second, strict=True):
        if kind != other:
            return f"a {other} output instead of a {kind} one"
        if kind.startswith("image/") and kind != "image/svg+xml":
            if not _same_image(before, after):
                return f"another {kind} image"
        elif normal(before) != normal(after):
            return _first_line(normal(before), normal(after))
    return ""


def _flat(outputs: Sequence[Any]) -> list[tuple[str, str]]:
    """``(kind, text)`` of everything shown; pieces of one stream count as one."""
    result: list[tuple[str, str]] = []
    for output in outputs:
        if _WAITED.fullmatch(str(output.get("data", {}).get("text/plain", ""))):
            continue  # a bar that shows only when something took long
        if output.output_type == "stream":
            if result and result[-1][0] == output.name:
                result[-1] = (output.name, result[-1][1] + output.text)
            else:
                result.append((output.name, output.text))
        elif output.output_type == "error":
            result.append(("error", f"{output.ename}: {output.evalue}"))
        else:
            data = {kind: value for kind, value in output.data.items() if kind not in IGNORED}
            result += [(kind, value if isinstance(value, str) else repr(value)) for kind, value in sorted(data.items())]
    return [(kind, text) for kind, text in result if kind != "stderr"]


def normal(text: str) -> str:
    """``text`` without what differs from run to run; images in it by their pixels."""
    text = _IMAGE.sub(_image_name, text)
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    return text


def _image_name(found: re.Match[str]) -> str:
    if found[1] == "image/svg+xml":  # drawn from times
        return "<drawing>"
    import hashlib

    return f"<image {hashlib.sha256(_pixels(found[2])).hexdigest()[:12]}>"


def _same_image(before: str, after: str) -> bool:
    return before == after or _pixels(before) == _pixels(after)


def _pixels(encoded: str) -> bytes:
    from PIL import Image

    data = base64.b64decode(encoded)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return repr(image.size).encode() + image.convert("RGB").tobytes()
    except OSError:
        return data


def _first_line(before: str, after: str) -> str:
    for line in difflib.ndiff(before.splitlines(), after.splitlines()):
        if line.startswith(("- ", "+ ")):
            where = "is gone" if line[0] == "-" else "is new"
            return f"{line[2:][:160]!r} {where}"
    return "white space"
