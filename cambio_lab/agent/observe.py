"""Both eyes as data: after each step, look at what the model was not shown, for people to explain a failure with.

The screen beside what was done in the browser or the shell, the page's accessibility tree beside what was done with
the mouse. It costs time at each step (measured in docs/benchmarks.md), so it is off unless a session asks for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from ..desktop.base import Desktop, Screenshot
from ..errors import DesktopError, DesktopLost
from ..events import Unseen
from .tools.call import BROWSER, Call, Outcome

LOOKS = ("screenshot", "ax")
SECONDS = 10.0


async def observe(wanted: Collection[str], desktop: Desktop, call: Call, outcome: Outcome, step: int) -> Unseen:
    """Return what ``wanted`` (of :data:`LOOKS`) names and the step's result does not have."""
    began, problem, tree = time.perf_counter(), "", ""
    image: Screenshot | None = None
    of_page = call.toolset == BROWSER
    try:
        async with asyncio.timeout(SECONDS):
            if "screenshot" in wanted and (of_page or outcome.image is None):
                image = await desktop.screenshot()
            if "ax" in wanted and not of_page and desktop.has_browser:
                tree = (await desktop.browse("observe", {}))["text"]
    except DesktopLost:
        raise
    except (DesktopError, TimeoutError) as error:
        problem = str(error) or type(error).__name__
    took = (time.perf_counter() - began) * 1000
    if image is None:
        return Unseen(call.id, step, took, tree, problem)
    return Unseen(call.id, step, took, tree, problem, image.data, image.media_type, image.width, image.height)
