"""A run as an example for the agent: what was done, in compact text, and key frames, within a number of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from .screenshot import Screenshot
from .text import clip, describe

if TYPE_CHECKING:
    from ..reports import Run

TOKENS = 6_000
FRAME_WIDTH, MOST_FRAMES = 512, 12
BYTES_PER_TOKEN, PATCH = 3, 28
"""Of text, on the high side (English has about four bytes a token); pixels of an image, either way."""
LOOKS = frozenset({"screenshot", "zoom", "cursor_position", "wait"})


@dataclass(frozen=True)
class Example:
    """``text`` and ``images`` go with a message; ``tokens`` is about what they cost."""

    text: str
    images: list[Screenshot]
    tokens: int


def example(run: Run, tokens: int = TOKENS) -> Example:
    """Return ``run`` as an example of at most ``tokens``: up to half of them screenshots, the rest what was done."""
    rows = [row for row in run.rows if row["action"] not in LOOKS and row["status"] == "completed"]
    frames = _frames(run, tokens // 2)
    cost = sum(map(_cost, frames))
    asked = clip(" / ".join(run.prompts) or run.name, 400)
    about = f"An example of how such a task was done before ({asked}):"
    note = f"\n{_about_images(run)}" if frames else ""
    lines = [f"{number}. {describe(row['action'], row['arguments'])}" for number, row in enumerate(rows, 1)]
    left = (tokens - cost) * BYTES_PER_TOKEN - len(f"{about}{note}\n({len(lines)} more steps)".encode())
    kept = sum(size <= left for size in accumulate(len(line.encode()) + 1 for line in lines))
    more = [f"({len(lines) - kept} more steps)"] if kept < len(lines) else []
    text = "\n".join([about, *lines[:kept], *more]) + note
    return Example(text, frames, cost - (-len(text.encode()) // BYTES_PER_TOKEN))


def _about_images(run: Run) -> str:
    sizes = (f"{step['width']}x{step['height']}" for step in reversed(run.contents.steps) if step.get("width"))
    return (
        "The images show the screen during it, in order and reduced; the places above are those of "
        f"{next(sizes, 'the whole')} pixels. Do the same in spirit: places may differ now."
    )


def _frames(run: Run, tokens: int) -> list[Screenshot]:
    """Return screenshots of the run, evenly spread, as many as ``tokens`` allow; the last is among them."""
    digests = list(
        dict.fromkeys(row["screenshot"] for row in run.rows if row["screenshot"] and row["action"] != "zoom")
    )
    if not digests:
        return []
    last = _frame(run, digests[-1])
    count = min(MOST_FRAMES, len(digests), tokens // _cost(last))
    if count < 2:
        return [last] * count
    places = [round(index * (len(digests) - 1) / (count - 1)) for index in range(count)]
    return [_frame(run, digests[place]) for place in places]


def _frame(run: Run, digest: str) -> Screenshot:
    return Screenshot(run.screenshot(digest), "image/png", "A screen of the example").jpeg(
        width=FRAME_WIDTH, quality=70
    )


def _cost(frame: Screenshot) -> int:
    """Return what the service counts: a token for each patch that an image begins."""
    width, height = (-(-side // PATCH) for side in frame.size)
    return width * height
