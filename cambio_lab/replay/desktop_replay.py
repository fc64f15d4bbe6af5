"""Desktop replay: recorded actions performed on a live desktop, and what it shows compared with what was recorded."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from ..agent.options import OPTIONAL_MEMBERS
from ..desktop.base import Desktop, Region, Screenshot, Size
from ..errors import BundleRefused, DesktopError, DesktopLost
from ..recording import Contents, Json, calls
from ..recording.calls import CLIENT
from ..recording.rows import data_uri, draw, render

if TYPE_CHECKING:
    import numpy as np

PATIENCE = 4.0
"""Seconds that the desktop may take to look as recorded: programs do not start equally fast each time."""
LOOK_AGAIN = 0.1
LONGEST_GAP = 3.0
"""Seconds of the recorded pause before an action that are kept; what the model took longer changes nothing."""
SKIPPED = frozenset({"release_all", "settle", "cursor_position", "get_clipboard"})


def clock_mask(size: Size) -> Region:
    """The clock of our own desktop image, at the right end of its panel."""
    return Region(size.width - 80, size.height - 36, size.width, size.height)


@dataclass(frozen=True)
class Look:
    """One recorded screenshot and what the desktop showed in its place.

    ``changed`` is the share of unmasked pixels that differ (0 to 1), ``box`` surrounds them.
    """

    step: int | None
    matches: bool
    changed: float
    recorded: bytes
    seen: bytes
    box: Region | None = None

    def difference(self) -> bytes:
        """Return a PNG: the recorded screenshot dimmed, every pixel that differs in red, a frame around them."""
        from PIL import Image, ImageDraw

        first, second = _pixels(self.recorded), _pixels(self.seen)
        shown = first // 3 + 90
        if first.shape == second.shape:
            shown[(first != second).any(axis=2)] = (255, 0, 0)
        image = Image.fromarray(shown.astype("uint8"))
        if self.box is not None:
            ImageDraw.Draw(image).rectangle(self.box, outline=(255, 0, 255), width=2)
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()


@dataclass
class DesktopReplay:
    """The result of a desktop replay. ``looks`` are in order; ``failure`` says why it ended early, if it did."""

    looks: list[Look] = field(default_factory=list)
    performed: int = 0
    failure: str | None = None
    seconds: float = 0.0

    @property
    def divergence(self) -> Look | None:
        """The first screenshot that differs."""
        return next((look for look in self.looks if not look.matches), None)

    @property
    def matches(self) -> bool:
        return self.failure is None and self.divergence is None

    def __repr__(self) -> str:
        good = sum(look.matches for look in self.looks)
        said = f"{good} of {len(self.looks)} screenshots match, {self.performed} actions, {self.seconds:.1f} s"
        if self.divergence is not None:
            said += f"; first difference at step {self.divergence.step} ({self.divergence.changed:.2%} of the pixels)"
        return f"DesktopReplay({said}{f'; {self.failure}' if self.failure else ''})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        look = self.divergence
        images = look and (("recorded", look.recorded), ("now", look.seen), ("difference", look.difference()))
        figures = [(data_uri(draw(data, (), 640)), title) for title, data in images or ()]
        page = render("replay", "desktop_replay", summary=repr(self), figures=figures)
        return {"text/html": page, "text/plain": repr(self)}


async def replay_on(
    contents: Contents,
    desktop: Desktop,
    *,
    masks: Sequence[Region] = (),
    tolerance: float = 0.0,
    stop_at_first: bool = True,
    last_step: int | None = None,
) -> DesktopReplay:
    """Perform the run's actions on ``desktop``, up to ``last_step`` if given, and compare every screenshot.

    ``tolerance`` is the share of pixels that may differ; pixels in ``masks`` never count. The desktop should be a
    fresh one of the recorded image and size.
    """
    replay, began = DesktopReplay(), time.perf_counter()
    desktop.limit_browser(None, frozenset(OPTIONAL_MEMBERS))
    ended = contents.manifest["session"].get("created_at", 0.0)  # a desktop needs a moment before its first action
    for call in contents.observations:
        if last_step is not None and (call.get("step") or 0) > last_step:
            break
        if call["method"] in SKIPPED or "error" in call or call.get("by") == CLIENT:
            continue
        gap = min(LONGEST_GAP, max(0.0, call["at"] - ended))
        ended = call["at"] + call["ms"] / 1000
        await asyncio.sleep(gap)
        try:
            result = await perform(desktop, call)
        except DesktopError as error:
            replay.failure = f"step {call.get('step')}: {call['method']} failed: {error.message}"
            if stop_at_first or isinstance(error, DesktopLost):
                break
            continue
        replay.performed += 1
        if call["method"] == "browse" and (found := _first_difference(call, result)):
            replay.failure = f"step {call.get('step')}: {found}"
            if stop_at_first:
                break
        if isinstance(result, Screenshot) and "picture" in call["result"]:
            look = await _look(contents, desktop, call, result, masks, tolerance)
            replay.looks.append(look)
            if not look.matches and stop_at_first:
                break
    replay.seconds = time.perf_counter() - began
    return replay


def _first_difference(call: Json, result: Json) -> str:
    """Return how what the browser read differs from the recording; empty when it does not."""
    if call["arguments"]["member"] not in ("read_page", "get_page_text", "find"):
        return ""
    recorded, seen = (str(one.get("text", "")).splitlines() for one in (call["result"]["browser"], result))
    for number, (then, now) in enumerate(zip_longest(recorded, seen), 1):
        if then != now:
            member = call["arguments"]["member"]
            return f"{member} differs at line {number}: recorded {then!r:.200}, now {now!r:.200}"
    return ""


async def perform(desktop: Desktop, call: Json) -> Any:
    """One recorded call on a live desktop."""
    method, arguments = call["method"], calls.restore_arguments(call["arguments"])
    if method == "sleep":
        return await asyncio.sleep(arguments["seconds"])
    if method not in calls.METHODS:
        raise BundleRefused(f"a recorded call has the unknown method {method!r}")
    if method == "read_file":
        return b"".join([chunk async for chunk in desktop.read_file(**arguments)])
    return await methodcaller(method, **arguments)(desktop)


async def _look(
    contents: Contents, desktop: Desktop, call: Json, seen: Screenshot, masks: Sequence[Region], tolerance: float
) -> Look:
    """Compare; while it differs, look again for a while."""
    recorded: Screenshot = calls.decode(call["result"], contents.find)
    deadline = time.monotonic() + PATIENCE
    while True:
        look = await asyncio.to_thread(compare, call.get("step"), recorded.data, seen.data, masks, tolerance)
        if look.matches or time.monotonic() > deadline:
            return look
        await asyncio.sleep(LOOK_AGAIN)
        seen = await perform(desktop, call)


def compare(step: int | None, recorded: bytes, seen: bytes, masks: Sequence[Region], tolerance: float = 0.0) -> Look:
    """Compare two encoded screenshots, pixel by pixel."""
    first, second = _pixels(recorded), _pixels(seen)
    if first.shape != second.shape:
        return Look(step, False, 1.0, recorded, seen)
    different = (first != second).any(axis=2)
    for mask in masks:
        different[mask.y0 : mask.y1, mask.x0 : mask.x1] = False
    share = float(different.mean())
    if share == 0.0:
        return Look(step, True, 0.0, recorded, seen)
    rows, columns = different.nonzero()
    box = Region(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    return Look(step, share <= tolerance, share, recorded, seen, box)


def _pixels(data: bytes) -> np.ndarray[Any, Any]:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))
