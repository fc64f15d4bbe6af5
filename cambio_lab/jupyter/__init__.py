"""Turns as static HTML and text, for a saved notebook without kernel, server, scripts or styles.

Only elements and attributes that GitHub's sanitiser and nbviewer keep: headings, lists, tables, ``img`` with ``alt``,
``details``. All text of agents, desktops and people is escaped. Screenshots are JPEGs, chosen and sized so that one
output stays below a number of bytes (``CAMBIO_LAB_OUTPUT_BYTES``, default 400 KB).
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from typing import Any

from ..client.display import clip, shorten, visible
from ..client.feed import MAX_SCREENSHOTS
from ..client.screenshot import Screenshot
from ..client.turn import Step, Turn, thin
from ..errors import ConfigurationError
from ..usage import duration

DEFAULT_BYTES = 400_000
LONGEST_TEXT = 20_000
"""Characters of one answer or message; the run itself has all of it."""
STEP_TEXT = 400
STRIP_COLUMNS, STRIP_WIDTH = 4, 240
_SIZES = ((480, 60), (360, 50), (280, 45), (200, 40), (140, 35))
_FINAL = ((1280, 80), (1280, 60), (1024, 55), (800, 50), (640, 40))


def output_bytes() -> int:
    """The largest size of one output in bytes: ``CAMBIO_LAB_OUTPUT_BYTES`` or 400,000."""
    text = os.environ.get("CAMBIO_LAB_OUTPUT_BYTES", "")
    try:
        return int(text) if text else DEFAULT_BYTES
    except ValueError:
        raise ConfigurationError(f"CAMBIO_LAB_OUTPUT_BYTES is {text!r}.", hint="Set it to a number of bytes.") from None


def bundle(turns: Sequence[Turn], *, title: str = "") -> dict[str, Any]:
    """``text/html`` and ``text/plain`` of ``turns``."""
    return {"text/html": render(turns, title=title), "text/plain": text(turns, title=title)}


def text(turns: Iterable[Turn], *, title: str = "") -> str:
    """The transcript as plain text without control characters."""
    lines = [title] if title else []
    for turn in turns:
        lines.extend(turn.transcript())
    return visible(shorten("\n".join(lines), 5 * LONGEST_TEXT))


def render(
    turns: Sequence[Turn],
    *,
    title: str = "",
    with_final: bool = True,
    with_frames: bool = True,
    cap: int | None = None,
) -> str:
    """The record as HTML of at most ``cap`` bytes; text is kept before images, the last image before the others."""
    cap = output_bytes() if cap is None else cap
    final = next((turn.screenshot for turn in reversed(turns) if turn.screenshot is not None), None)
    limit = LONGEST_TEXT
    while True:
        bare = _page(turns, title, {}, None, limit)
        if len(bare.encode()) <= cap or limit <= 200:
            break
        limit //= 4
    left = cap - len(bare.encode()) - 500
    shown = _fit(final, left * 2 // 3, _FINAL) if with_final and final is not None else None
    left -= len(shown.data_uri) if shown is not None else 0
    return _page(turns, title, _frames(turns, left) if with_frames else {}, shown, limit)


def escape(value: str, limit: int = LONGEST_TEXT) -> str:
    """Text that no browser takes for markup, script or link; without terminal codes."""
    return html.escape(shorten(visible(value), limit), quote=True)


def _page(
    turns: Sequence[Turn], title: str, frames: dict[int, Screenshot], final: Screenshot | None, limit: int
) -> str:
    head = [f"<p><strong>{escape(title, 300)}</strong></p>"] if title else []
    said = (line for turn in turns for line in _turn(turn, frames, limit))
    end = [f"<p><strong>The desktop at the end</strong></p>\n<p>{_img(final, final.alt)}</p>"] if final else []
    return "\n".join(['<div class="cambio-record">', *head, *said, *end, "</div>"])


def _turn(turn: Turn, frames: dict[int, Screenshot], limit: int) -> Iterable[str]:
    yield f"<p><strong>You:</strong> {_lines(turn.message, limit)}</p>"
    steps: list[Step] = []
    for item in turn.items:
        if isinstance(item, Step):
            steps.append(item)
            continue
        yield from _steps(steps, limit)
        steps = []
        if item.strip():
            yield f"<p><strong>Agent:</strong> {_lines(item, limit)}</p>"
    yield from _steps(steps, limit)
    if turn.error is not None:
        yield f"<p><strong>Error:</strong> {_lines(turn.error.describe(), limit)}</p>"
    yield f"<p><em>{escape(turn.outcome)}</em></p>"
    strip = [step for step in turn.steps if id(step) in frames]
    if strip:
        yield f"<details open><summary>Filmstrip: {len(strip)} of {len(turn.steps)} steps</summary>"
        yield _table([frame(step, frames[id(step)], width=STRIP_WIDTH) for step in strip])
        yield "</details>"


def _steps(steps: Sequence[Step], limit: int) -> Iterable[str]:
    if not steps:
        return
    yield f'<ol start="{int(steps[0].number)}">'
    for step in steps:
        took = f" <small>{duration(step.timing['total_ms'])}</small>" if step.timing.get("total_ms") else ""
        state = "" if step.ok else f" <strong>{escape(step.status, 40)}</strong>"
        said = clip(step.text, min(STEP_TEXT, limit))
        result = f"<br><small>{escape(said)}</small>" if said else ""
        yield f"<li><code>{escape(step.summary, 200)}</code>{state}{took}{result}</li>"
    yield "</ol>"


def frame(step: Step, image: Screenshot | None = None, *, width: int = 0) -> str:
    """``<img>`` of a step's image with its caption, or nothing; ``width`` is the shown one in pixels."""
    image = image or step.screenshot
    if image is None:
        return ""
    words = f"Step {step.number}: {step.summary}"
    return f"{_img(image, words, title=words, width=width)}<br><small>{escape(clip(words, 60))}</small>"


def _table(cells: Sequence[str]) -> str:
    """Cells in rows of a filmstrip: notebooks stack images that are in no table."""
    rows = [cells[start : start + STRIP_COLUMNS] for start in range(0, len(cells), STRIP_COLUMNS)]
    lines = ["".join(f'<td valign="top" style="text-align:left">{cell}</td>' for cell in row) for row in rows]
    return "<table><tbody>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</tbody></table>"


def _img(image: Screenshot, alt: str, title: str = "", width: int = 0) -> str:
    full, height = image.size
    width = min(width or full, full)
    more = f' title="{escape(title, 200)}"' if title else ""
    size = f'width="{width}" height="{round(height * width / full)}"'
    return f'<img src="{image.data_uri}" {size} alt="{escape(alt, 200)}"{more}>'


def _lines(value: str, limit: int) -> str:
    return escape(value.strip(), limit).replace("\n", "<br>\n")


def _fit(image: Screenshot, most: int, sizes: Iterable[tuple[int, int]]) -> Screenshot | None:
    """The largest JPEG of ``image`` whose data URI has at most ``most`` bytes."""
    made = (image.jpeg(width=width, quality=quality) for width, quality in sizes)
    return next((small for small in made if len(small.data_uri) <= most), None)


def _frames(turns: Sequence[Turn], most: int) -> dict[int, Screenshot]:
    """A reduced image for each step that gets one, by ``id(step)``; together at most ``most`` bytes."""
    steps = [step for turn in turns for step in turn.steps if step.screenshot is not None]
    chosen = thin(steps, MAX_SCREENSHOTS)
    while chosen:
        share = most // len(chosen) - 400
        fitted = {id(step): step.screenshot and _fit(step.screenshot, share, _SIZES) for step in chosen}
        if small := {key: image for key, image in fitted.items() if image is not None}:
            return small
        chosen = thin(chosen, len(chosen) // 2)
    return {}
