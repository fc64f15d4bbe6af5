"""Small pictures for lists: made once for all who look, and only when the screen has changed."""

from __future__ import annotations

import weakref
from typing import Any

from ..desktop.base import Desktop


class Thumbnails:
    """The last picture of each desktop and width; a desktop that is gone takes its pictures with it."""

    def __init__(self) -> None:
        self._last: weakref.WeakKeyDictionary[Any, dict[int, tuple[object, bytes]]] = weakref.WeakKeyDictionary()

    async def of(self, desktop: Desktop, width: int) -> bytes:
        """A JPEG ``width`` pixels wide. Raises what the desktop raises when it is away."""
        revision = desktop.revision
        kept = self._last.setdefault(desktop, {})
        if revision is not None and width in kept and kept[width][0] == revision:
            return kept[width][1]
        picture = await desktop.thumbnail(width)
        if revision is not None:
            kept[width] = (revision, picture.data)
        return picture.data
