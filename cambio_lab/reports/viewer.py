"""A run as a page that needs nothing: no server, no kernel, no scripts (with them, it gains a slider).

Everything in it that comes from the run is untrusted, because the desktop can speak through it: it is escaped, and
pictures are drawn anew.
"""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Sequence

from ..recording import drawing
from ..recording.contents import Contents, Json
from ..recording.rows import describe, rows, usage_of

MOST_SCENES = 150
MOST_WORDS = 4000
LOOKS = frozenset({"screenshot", "zoom"})
_SCRIPT = """
(function () {
  const root = document.getElementById('%(id)s');
  if (!root || root.dataset.ready) return;
  root.dataset.ready = '1';
  const scenes = Array.from(root.querySelectorAll('figure'));
  const steps = JSON.parse(root.querySelector('.cambio-run-steps').textContent);
  if (!scenes.length || !steps.length) return;
  const strip = root.querySelector('.cambio-run-strip');
  const stage = document.createElement('div');
  const image = document.createElement('img');
  image.style.cssText = 'max-width:100%%;height:auto;border:1px solid #8888;display:block';
  image.alt = '';
  const slider = document.createElement('input');
  slider.type = 'range'; slider.min = 0; slider.max = steps.length - 1; slider.value = 0; slider.style.width = '100%%';
  slider.setAttribute('aria-label', 'Step');
  const words = document.createElement('p');
  words.setAttribute('aria-live', 'polite');
  words.style.cssText = 'min-height:3em;white-space:pre-wrap;margin:4px 0';
  stage.append(slider, words, image);
  strip.before(stage);
  const more = document.createElement('details');
  const summary = document.createElement('summary');
  summary.textContent = 'All pictures';
  more.append(summary); strip.before(more); more.append(strip);
  function show() {
    const step = steps[slider.value];
    const scene = scenes[step.scene];
    const picture = scene && scene.querySelector('img');
    image.hidden = !picture;
    if (picture) { image.src = picture.src; image.alt = step.words; }
    const said = step.said ? '\\n' + step.said : '';
    words.textContent = 'Step ' + step.step + ' of ' + steps.length + ': ' + step.words + said;
  }
  slider.addEventListener('input', show);
  show();
})();
"""


def page(contents: Contents, *, whole: bool = False) -> str:
    """The viewer as a fragment of HTML, or as a ``whole`` page."""
    steps = rows(contents)
    found = drawing.scenes(steps)[:MOST_SCENES]
    pictures = drawing.draw_scenes(found, contents.find)
    identity = f"cambio-run-{secrets.token_hex(4)}"
    parts = [
        f'<div id="{identity}" class="cambio-run" style="max-width:980px;font-family:sans-serif">',
        _head(contents, len(steps)),
        _plots(steps),
        _strip(found, pictures),
        f'<script type="application/json" class="cambio-run-steps">{_steps_json(found)}</script>',
        _transcript(contents),
        f"<script>{_SCRIPT % {'id': identity}}</script></div>",
    ]
    body = "\n".join(parts)
    if not whole:
        return body
    title = html.escape(str(contents.manifest["session"].get("name", "run")))
    head = f'<head><meta charset="utf-8"><title>{title}</title></head>'
    return f'<!doctype html><html lang="en">{head}<body>{body}</body></html>\n'


def _head(contents: Contents, steps: int) -> str:
    session, usage = contents.manifest["session"], usage_of(contents.manifest.get("usage", {}))
    facts = [str(contents.manifest.get("model", "")), f"{steps} steps", f"{seconds(contents):.1f} s"]
    facts += [f"{usage.requests} requests", f"${usage.cost_usd:.4f}"]
    if not contents.manifest.get("complete", True):
        facts.append("not finished when this was saved")
    said = " · ".join(html.escape(fact) for fact in facts)
    return f"<h3>{html.escape(str(session.get('name', '')))}</h3><p>{said}</p>"


def seconds(contents: Contents) -> float:
    """From the first event to the last."""
    times = [event["time"] for event in contents.events]
    return max(times) - min(times) if times else 0.0


def _strip(found: Sequence[drawing.Scene], pictures: Sequence[bytes]) -> str:
    figures = []
    for scene, picture in zip(found, pictures, strict=True):
        words = "; ".join(f"{step['step']}. {describe(step['action'], step['arguments'])}" for step in scene.steps)
        caption = html.escape(_cut(words, 300)) or "The last picture"
        image = (
            f'<img src="{drawing.data_uri(picture)}" alt="{caption}" style="max-width:100%;height:auto">'
            if picture
            else ""
        )
        style = "display:inline-block;vertical-align:top;width:300px;margin:4px"
        figures.append(f'<figure style="{style}">{image}<figcaption>{caption}</figcaption></figure>')
    return f'<div class="cambio-run-strip">{"".join(figures)}</div>'


def _steps_json(found: Sequence[drawing.Scene]) -> str:
    steps = [
        {
            "step": step["step"],
            # a look shows what it saw; an action is drawn on what was seen before it
            "scene": scene.index + (step["action"] in LOOKS and scene.index + 1 < len(found)),
            "words": _cut(describe(step["action"], step["arguments"]), 300),
            "said": _cut(step["said"], 1000),
        }
        for scene in found
        for step in scene.steps
    ]
    return json.dumps(steps).replace("<", "\\u003c")


def _transcript(contents: Contents) -> str:
    parts = []
    for event in contents.events:
        kind = event["kind"]
        if kind == "UserMessage":
            parts.append(_said("User", event["content"]))
        elif kind == "TurnFinished":
            parts.append(_said("Agent", event["text"]))
        elif kind == "TurnFailed":
            parts.append(_said("Error", f"{event['error']} {event['details']}"))
        elif kind == "ToolFinished":
            words = describe(event["tool"], event["arguments"])
            outcome = f" → {event['text']}" if event["text"] else ""
            parts.append(f"<div>{event['step']}. {html.escape(_cut(words + outcome, 500))}</div>")
    return f"<details open><summary>Transcript</summary>{''.join(parts)}</details>"


def _said(who: str, words: str) -> str:
    text = html.escape(_cut(words, MOST_WORDS))
    return f'<p style="white-space:pre-wrap"><strong>{who}:</strong> {text}</p>'


def _plots(steps: Sequence[Json]) -> str:
    """Time and money of each step, as pictures: a page that allows no inline SVG still shows them."""
    times = [(row["model_ms"], row["total_ms"]) for row in steps]
    costs = [(row["cost_usd"], 0.0) for row in steps]
    if not steps:
        return ""
    charts = [_bars("ms per step: model (dark), action (light)", times)]
    if any(cost for cost, _ in costs):
        charts.append(_bars("US dollars per step", costs))
    return f"<p>{''.join(charts)}</p>"


def _bars(title: str, values: Sequence[tuple[float, float]], width: int = 460, height: int = 110) -> str:
    most = max(one + other for one, other in values) or 1.0
    step = width / len(values)
    bars = []
    for index, (one, other) in enumerate(values):
        lower, upper = one / most * (height - 30), other / most * (height - 30)
        x, thickness = index * step, max(1.0, step - 1)
        for top, tall, color in (
            (height - lower, lower, "#24527a"),
            (height - lower - upper, upper, "#8fb8de"),
        ):
            bars.append(f'<rect x="{x:.1f}" y="{top:.1f}" width="{thickness:.1f}" height="{tall:.1f}" fill="{color}"/>')
    label = html.escape(f"{title}; highest {most:.4g}")
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
        f'<rect width="{width}" height="{height}" fill="#f4f6f8"/><text x="4" y="14" font-size="12">{label}</text>'
        f"{''.join(bars)}</svg>"
    )
    return f'<img src="{drawing.data_uri(svg.encode(), "image/svg+xml")}" alt="{label}" style="margin:4px"> '


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"
