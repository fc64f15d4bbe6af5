"""A run as an example for the agent: what was done, in compact text, and key frames, within a number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .screenshot import Screenshot
from .text import clip, describe

if TYPE_CHECKING:
    from ..reports import Run

TOKENS = 6_000
FRAME_WIDTH, MOST_FRAMES = 512, 12
CHARACTERS_PER_TOKEN, PIXELS_PER_TOKEN = 4, 750
"""Roughly, of English text and of an image."""
LOOKS = frozenset({"screenshot", "zoom", "cursor_position", "wait"})


@dataclass(frozen=True)
class Example:
    """``text`` and ``images`` go with a message; ``tokens`` is about what they cost."""

    text: str
    images: list[Screenshot]
    tokens: int


def example(run: Run, tokens: int = TOKENS) -> Example:
    """Return ``run`` as an example: at most half of ``tokens`` is text, the rest screenshots after what was done."""
    rows = [row for row in run.rows if row["action"] not in LOOKS and row["status"] == "completed"]
    asked = clip(" / ".join(run.prompts) or run.name, 400)
    lines, left = [f"An example of how such a task was done before ({asked}):"], tokens * CHARACTERS_PER_TOKEN // 2
    for number, row in enumerate(rows, 1):
        line = f"{number}. {describe(row['action'], row['arguments'])}"
        if len(line) > left:
            lines.append(f"({len(rows) - number + 1} more steps)")
            break
        left -= len(line) + 1
        lines.append(line)
    frames = _frames(run, rows, tokens // 2)
    if frames:
        lines.append("The images show the screen during it, in order. Do the same in spirit: places may differ now.")
    text = "\n".join(lines)
    return Example(text, frames, len(text) // CHARACTERS_PER_TOKEN + sum(map(_cost, frames)))


def _frames(run: Run, rows: list[dict[str, Any]], tokens: int) -> list[Screenshot]:
    """Return screenshots after the steps, evenly spread, as many as ``tokens`` allow."""
    digests = list(dict.fromkeys(row["screenshot"] for row in rows if row["screenshot"]))
    if not digests:
        return []
    first = _frame(run, digests[0])
    count = min(MOST_FRAMES, len(digests), max(1, tokens // _cost(first)))
    if count == 1:
        return [_frame(run, digests[-1])]
    places = [round(index * (len(digests) - 1) / (count - 1)) for index in range(count)]
    return [_frame(run, digests[place]) for place in places]


def _frame(run: Run, digest: str) -> Screenshot:
    return Screenshot(run.screenshot(digest), "image/png", "A screen of the example").jpeg(
        width=FRAME_WIDTH, quality=70
    )


def _cost(frame: Screenshot) -> int:
    width, height = frame.size
    return width * height // PIXELS_PER_TOKEN
