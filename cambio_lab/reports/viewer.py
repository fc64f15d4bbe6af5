"""A run as a page that needs nothing: no server, no kernel, no scripts (with them, it gains a slider).

Everything in it that comes from the run is untrusted, because the desktop can speak through it: the templates escape
it, and screenshots are drawn again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ..recording import Contents, Json, drawing, images_of
from ..recording.rows import counted, describe, rows, usage_of

MAX_SCENES = 150
MAX_WORDS = 4000
MAX_SENT = 20
"""Images of messages that are shown."""
LOOKS = frozenset({"screenshot", "zoom"})
WIDTH, HEIGHT = 460, 110
"""Of a chart, in pixels."""


def page(contents: Contents, *, whole: bool = False) -> str:
    """Return the viewer as a fragment of HTML, or as a ``whole`` page."""
    steps = rows(contents)
    found = drawing.scenes(steps)[:MAX_SCENES]
    images = drawing.draw_scenes(found, contents.find)
    return drawing.render(
        "reports",
        "run",
        whole=whole,
        identity=f"cambio-run-{secrets.token_hex(4)}",
        name=str(contents.manifest["session"].get("name", "")),
        facts=_facts(contents, len(steps)),
        charts=_charts(steps),
        scenes=[
            (image and drawing.data_uri(image), _caption(scene)) for scene, image in zip(found, images, strict=True)
        ],
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
    unfinished = [] if contents.manifest.get("complete", True) else ["not finished when this was saved"]
    return facts + unfinished


def _caption(scene: drawing.Scene) -> str:
    words = "; ".join(
        f"{step['step']}. {describe(step['action'], step['arguments'], step['status'])}" for step in scene.steps
    )
    return shorten(words, 300) or "The last screenshot"


def _steps(found: Sequence[drawing.Scene]) -> list[Json]:
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
        if (entry := _entry(event, status)) is None:
            continue
        who, text = entry
        if who == "Agent" and not text.strip():
            continue
        images = images_of(event)[: MAX_SENT - drawn] if event["kind"] == "UserMessage" else []
        drawn += len(images)
        scenes = [drawing.Scene(0, image["sha256"]) for image in images]
        shown = [drawing.data_uri(image) for image in drawing.draw_scenes(scenes, contents.find) if image]
        found.append({"who": who, "text": shorten(text, MAX_WORDS if who else 500), "images": shown})
    return found


def _entry(event: Json, status: dict[str, str]) -> tuple[str, str] | None:
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
    return None


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
    step = WIDTH / len(values)
    bars = []
    for index, (one, other) in enumerate(values):
        lower, upper = one / highest * (HEIGHT - 30), other / highest * (HEIGHT - 30)
        place = {"x": index * step, "width": max(1.0, step - 1)}
        bars.append({**place, "y": HEIGHT - lower, "height": lower, "color": "#24527a"})
        bars.append({**place, "y": HEIGHT - lower - upper, "height": upper, "color": "#8fb8de"})
    label = f"{title}; highest {highest:.4g}"
    image = drawing.render("reports", "chart", label=label, bars=bars, width=WIDTH, height=HEIGHT)
    return label, drawing.data_uri(image.encode(), "image/svg+xml")


def shorten(words: str, longest: int) -> str:
    """Return at most ``longest`` characters."""
    return words if len(words) <= longest else words[: longest - 1] + "…"
