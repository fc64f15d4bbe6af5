"""Ten small, checkable tasks for a desktop: files, an editor, a terminal, a window, a browser on local pages.

Each is seeded: names, numbers and places differ from repeat to repeat, and are the same for every model of a repeat.
None needs the internet. ``docs/experiments.md`` shows how to add yours.
"""

from __future__ import annotations

from ..task import Task
from .browser import FILL_FORM, READ_PAGE
from .desktop import (
    COUNT_ERRORS,
    FIX_SCRIPT,
    MAKE_FOLDERS,
    PRESS_BUTTON,
    RENAME_PHOTOS,
    REPLACE_WORD,
    SORT_FILES,
    WRITE_LETTER,
)

TASKS: tuple[Task, ...] = (
    MAKE_FOLDERS,
    SORT_FILES,
    RENAME_PHOTOS,
    REPLACE_WORD,
    WRITE_LETTER,
    COUNT_ERRORS,
    FIX_SCRIPT,
    PRESS_BUTTON,
    FILL_FORM,
    READ_PAGE,
)
"""All ten."""

__all__ = ["TASKS"]
