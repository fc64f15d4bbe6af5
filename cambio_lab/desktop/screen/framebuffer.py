"""The framebuffer as the server last described it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..base import Region, Size
from .encode import Frame


class Rect(NamedTuple):
    """A damaged rectangle: ``x``, ``y``, ``width``, ``height`` in pixels."""

    x: int
    y: int
    width: int
    height: int


class Screen:
    """Pixels in the X server's own order (blue, green, red, unused).

    ``serial`` grows with each update, so equal serials mean equal pixels.
    """

    def __init__(self, size: Size) -> None:
        self.frame: Frame = np.zeros((size.height, size.width, 4), np.uint8)
        self.serial = 0

    @property
    def size(self) -> Size:
        height, width = self.frame.shape[:2]
        return Size(width, height)

    def resize(self, size: Size) -> None:
        """Keep what both sizes share; the server repaints the rest."""
        if size == self.size:
            return
        frame = np.zeros((size.height, size.width, 4), np.uint8)
        height, width = min(size.height, self.size.height), min(size.width, self.size.width)
        frame[:height, :width] = self.frame[:height, :width]
        self.frame = frame
        self.serial += 1

    def rows(self, rect: Rect) -> memoryview | None:
        """The memory of ``rect`` if it spans whole rows, so that pixels can be received in place."""
        if rect.x == 0 and rect.width == self.size.width and rect.width * rect.height:
            return self.frame[rect.y : rect.y + rect.height].data.cast("B")
        return None

    def put(self, rect: Rect, pixels: bytearray) -> None:
        """Copy ``width * height * 4`` bytes of ``pixels`` to ``rect``."""
        count = rect.width * rect.height * 4
        block = np.frombuffer(pixels, np.uint8, count).reshape(rect.height, rect.width, 4)
        self.frame[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = block

    def copy_within(self, rect: Rect, source_x: int, source_y: int) -> None:
        """RFB's CopyRect; source and target may overlap."""
        block = self.frame[source_y : source_y + rect.height, source_x : source_x + rect.width].copy()
        self.frame[rect.y : rect.y + rect.height, rect.x : rect.x + rect.width] = block

    def thin(self, step: int) -> Frame:
        """A copy of every ``step``-th pixel of every ``step``-th row."""
        pixels = self.frame.view(np.uint32)[::step, ::step].copy()  # whole pixels: four times as fast as bytes
        return pixels.view(np.uint8)

    def crop(self, region: Region | None = None) -> Frame:
        """A copy of ``region`` (the whole screen by default), safe to encode in a thread."""
        if region is None:
            return self.frame.copy()
        return self.frame[region.y0 : region.y1, region.x0 : region.x1].copy()
