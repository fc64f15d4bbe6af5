"""A run for people to read: a page that needs nothing, a Markdown report with its images, and the run file."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..recording import Contents, Json, images_of
from ..recording.rows import (
    Scene,
    counted,
    data_uri,
    describe,
    draw_scene,
    draw_scenes,
    render,
    rows,
    scenes,
    shorten,
    usage_of,
)
from ..usage import duration
from . import only

if TYPE_CHECKING:
    from .run import Run

MAX_SCENES = 150
MAX_WORDS = 4000
MAX_SENT = 20
"""Images of messages that are shown."""
LOOKS = frozenset({"screenshot", "zoom"})
CHART_WIDTH, CHART_HEIGHT, REPORT_WIDTH = 460, 110, 960
"""In pixels."""
ASKING = frozenset({"ask_user", "hand_over"})
_MARKUP = re.compile(r"[\\`*_{}\[\]()#+\-.!|~:@$^=]")


def page(contents: Contents, *, whole: bool = False) -> str:
    """Return the viewer as a fragment of HTML, or as a ``whole`` page."""
    steps = rows(contents)
    found = scenes(steps)[:MAX_SCENES]
    images = draw_scenes(found, contents.find)
    return render(
        "reports",
        "run",
        whole=whole,
        identity=f"cambio-run-{secrets.token_hex(4)}",
        name=str(contents.manifest["session"].get("name", "")),
        facts=_facts(contents, len(steps)),
        charts=_charts(steps),
        scenes=[(image and data_uri(image), _caption(scene)) for scene, image in zip(found, images, strict=True)],
        steps=_steps(found),
        transcript=_transcript(contents),
    )


def seconds(contents: Contents) -> float:
    """Return the time from the first event to the last."""
    times = [event["time"] for event in contents.events]
    return max(times) - min(times) if times else 0.0


def _facts(contents: Contents, steps: int) -> list[str]:
    usage = usage_of(contents.manifest.get("usage", {}))
    facts = [str(contents.manifest.get("model", "")), counted(steps, "step"), f"{seconds(contents):.1f} s"]
    facts += [counted(usage.requests, "request"), f"${usage.cost_usd:.4f}"]
    return facts if contents.manifest.get("complete", True) else [*facts, "not finished when this was saved"]


def _caption(scene: Scene) -> str:
    words = "; ".join(
        f"{step['step']}. {describe(step['action'], step['arguments'], step['status'])}" for step in scene.steps
    )
    return shorten(words, 300) or "The last screenshot"


def _steps(found: Sequence[Scene]) -> list[Json]:
    return [
        {
            "step": step["step"],
            # a look shows what it saw; an action is drawn on what was seen before it
            "scene": scene.index + (step["action"] in LOOKS and scene.index + 1 < len(found)),
            "words": shorten(describe(step["action"], step["arguments"], step["status"]), 300),
            "said": shorten(step["said"], 1000),
        }
        for scene in found
        for step in scene.steps
    ]


def _transcript(contents: Contents) -> list[Json]:
    status = {step["tool_use_id"]: step["status"] for step in contents.steps}
    found, drawn = list[Json](), 0
    for event in contents.events:
        who, text = _entry(event, status)
        if who == "Agent" and not text.strip():
            continue
        images = images_of(event)[: MAX_SENT - drawn] if event["kind"] == "UserMessage" else []
        drawn += len(images)
        sent = [Scene(0, image["sha256"]) for image in images]
        shown = [data_uri(image) for image in draw_scenes(sent, contents.find) if image]
        found.append({"who": who, "text": shorten(text, MAX_WORDS if who else 500), "images": shown})
    return found


def _entry(event: Json, status: dict[str, str]) -> tuple[str, str]:
    match event["kind"]:
        case "UserMessage" | "MessageDelivered":
            return "Note" if event.get("note") else "You", event["content"]
        case "ModelReplied":
            return "Agent", event["text"]
        case "TurnFinished":
            return "Agent", event.get("unfinished", "")
        case "TurnFailed":
            return "Error", f"{event['error']} {event['details']}"
        case "ToolFinished":
            outcome = f" → {event['text']}" if event["text"] else ""
            words = "a person: " if event.get("actor") == "human" else ""
            words += describe(event["tool"], event["arguments"], status.get(event["tool_use_id"], "completed"))
            return "", f"{event['step']}. {words}{outcome}"
    return "Agent", ""


def _charts(steps: Sequence[Json]) -> list[tuple[str, str]]:
    """Return the label and the image of each chart: a page that allows no inline SVG still shows images."""
    if not steps:
        return []
    times = [(row["model_ms"], row["total_ms"]) for row in steps]
    costs = [(row["cost_usd"], 0.0) for row in steps]
    charts = [_chart("ms per step: model (dark), action (light)", times)]
    return charts + ([_chart("US dollars per step", costs)] if any(cost for cost, _ in costs) else [])


def _chart(title: str, values: Sequence[tuple[float, float]]) -> tuple[str, str]:
    highest = max(one + other for one, other in values) or 1.0
    label = f"{title}; highest {highest:.4g}"
    size = {"width": CHART_WIDTH, "height": CHART_HEIGHT}
    image = render("reports", "chart", label=label, values=values, highest=highest, **size)
    return label, data_uri(image.encode(), "image/svg+xml")


class CambioExporter:
    """The run file, which holds everything."""

    summary = "the run file: can be replayed, compared and continued"
    suffixes = (".cambio",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        only(runs).save(target)


class HtmlExporter:
    """The viewer as a page of its own."""

    summary = "a page with screenshots, actions and transcript; needs no server"
    suffixes = (".html", ".htm")

    def write(self, runs: Sequence[Run], target: Path) -> None:
        only(runs).to_html(target)


class MarkdownExporter:
    """A report for people."""

    summary = "a report; its screenshots lie in a folder beside it"
    suffixes = (".md",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        markdown(only(runs), target)


def markdown(run: Run, path: Path | None = None) -> str:
    """Return the report; with a ``path`` it is written there, its screenshots into ``<name>_images`` beside it."""
    folder = path.with_name(f"{path.stem}_images") if path is not None else None
    lines = [f"# {escape(run.name)}", "", *_table(run), ""]
    shown = scenes(run.rows)
    images = {scene.digest: _drawn(run, folder, scene, f"{scene.index:04d}") for scene in shown if scene.digest}
    status = {row["tool_use_id"]: row["status"] for row in run.contents.steps}
    for event in run.contents.events:
        kind = event["kind"]
        if kind in ("UserMessage", "MessageDelivered"):
            title = "## Asked" if kind == "UserMessage" else "## Added during the turn"
            title = "## Told to the agent" if event.get("note") else title
            lines += [title, "", *_quote(event["content"]), ""]
            for image in images_of(event):
                name = f"sent-{image['sha256'][:12]}"
                if address := _drawn(run, folder, Scene(0, image["sha256"]), name):
                    lines += [f"![sent with the message]({address})", ""]
        elif said := event["text"] if kind == "ModelReplied" else event.get("unfinished"):
            lines += [*_quote(said), ""]
        elif kind == "ToolFinished":
            words = "A person: " if event.get("actor") == "human" else ""
            words += describe(event["tool"], event["arguments"])[:300]
            words += describe("", {}, status.get(event["tool_use_id"], "completed"))
            took = event["timing"]["total"]
            lines += [f"{event['step']}. {escape(words)}{f' ({duration(took)})' if took else ''}", ""]
            if event["tool"] in ASKING:
                lines += [*_quote(event["text"]), ""]
            if address := images.get((event.get("image") or {}).get("sha256", ""), ""):
                lines += [f"   ![after step {event['step']}]({address})", ""]
        elif kind == "TurnFailed":
            lines += ["## Failed", "", *_quote(f"{event['error']} {event['details']}"), ""]
    text = "\n".join(lines)
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return text


def _drawn(run: Run, folder: Path | None, scene: Scene, name: str) -> str:
    """Write the scene's image into ``folder``; return its address, empty where there is none."""
    data = draw_scene(scene, run.contents.find, REPORT_WIDTH) if folder is not None else b""
    if folder is None or not data:
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jpg").write_bytes(data)
    return quote(f"{folder.name}/{name}.jpg")


def _table(run: Run) -> list[str]:
    usage = run.usage
    return [
        "| | |",
        "|---|---|",
        f"| Model | {escape(run.model)} |",
        f"| Steps | {len(run.rows)} |",
        f"| Time | {run.seconds:.1f} s |",
        f"| Tokens in, read from cache, written to cache, out | {usage.input_tokens}, {usage.cache_read_input_tokens}, "
        f"{usage.cache_creation_input_tokens}, {usage.output_tokens} |",
        f"| Cost | ${usage.cost_usd:.4f} |",
    ]


def escape(words: str) -> str:
    """Return one line in which nothing is markup: no HTML, link, image, formula, table or heading."""
    text = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return _MARKUP.sub(r"\\\g<0>", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _quote(words: str) -> list[str]:
    return [f"> {escape(line)}" for line in words.splitlines() or [""]]
