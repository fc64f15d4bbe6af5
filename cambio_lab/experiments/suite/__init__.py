"""Ten small, checkable tasks for a desktop: files, an editor, a terminal, a window, a browser on local pages.

Each is seeded: names, numbers and places differ from repeat to repeat, and are the same for every model of a repeat.
None needs the internet. ``docs/experiments.md`` shows how to add yours.
"""

from __future__ import annotations

from ..._version import __version__
from ..task import Benchmark, Task
from . import browser, desktop

TASKS: tuple[Task, ...] = (*desktop.TASKS, *browser.TASKS)
"""All ten."""

BENCHMARK = Benchmark(
    name="cambio-basics",
    title="Ten small tasks on a desktop: files, editor, terminal, window, browser",
    version=__version__,
    load=lambda split: TASKS,
    metric="The share of runs whose check says yes; the score is the share of the task's parts that are right.",
    licence="BSD-3-Clause",
    citation="cambio_lab, docs/experiments.md",
    needs="the desktop image, or a desktop with Firefox, Mousepad and Tk",
)

__all__ = ["BENCHMARK", "TASKS"]
