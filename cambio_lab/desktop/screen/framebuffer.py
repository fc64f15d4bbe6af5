"""The framebuffer as the server last described it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..base import Region, Size
from .encode import Frame

BAND_BYTES = 256 * 1024
"""Pixels that are copied in one step of the event loop, in bytes."""


class Rect(NamedTuple):
    """A damaged rectangle: ``x``, ``y``, ``width``, ``height`` in pixels."""

    x: int
    y: int
    width: int
    height: int


def bounding(rects: list[Rect]) -> Rect:
    """Return the smallest rectangle that contains all ``rects``."""
    x, y = min(rect.x for rect in rects), min(rect.y for rect in rects)
    right, bottom = max(rect.x + rect.width for rect in rects), max(rect.y + rect.height for rect in rects)
    return Rect(x, y, right - x, bottom - y)


def _bands(rect: Rect) -> Iterator[tuple[int, int]]:
    """Yield ``y`` and height of the parts of ``rect`` that are at most :data:`BAND_BYTES` (one row at least)."""
    step = max(1, BAND_BYTES // (4 * max(1, rect.width)))
    for y in range(rect.y, rect.y + rect.height, step):
        yield y, min(step, rect.y + rect.height - y)


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

    def receive(self, rect: Rect) -> Iterator[memoryview]:
        """Yield the buffers that ``rect``'s raw pixels must be read into, in order; each is taken over at the next."""
        if rect.width * rect.height == 0:
            return
        if rect.x == 0 and rect.width == self.size.width:
            yield self.frame[rect.y : rect.y + rect.height].data.cast("B")  # whole rows: received in place
            return
        for y, height in _bands(rect):
            block = np.empty((height, rect.width, 4), np.uint8)
            yield block.data.cast("B")
            self.frame[y : y + height, rect.x : rect.x + rect.width] = block

    def copy_within(self, rect: Rect, source_x: int, source_y: int) -> Iterator[None]:
        """Do RFB's CopyRect in bands, so that the caller can yield between them; source and target may overlap."""
        bands = list(_bands(rect))
        for y, height in bands if rect.y <= source_y else reversed(bands):
            source = y - rect.y + source_y
            block = self.frame[source : source + height, source_x : source_x + rect.width].copy()
            self.frame[y : y + height, rect.x : rect.x + rect.width] = block
            yield

    def thin(self, step: int) -> Frame:
        """A copy of every ``step``-th pixel of every ``step``-th row."""
        pixels = self.frame.view(np.uint32)[::step, ::step].copy()  # whole pixels: four times as fast as bytes
        return pixels.view(np.uint8)

    def crop(self, region: Region | None = None) -> Frame:
        """A copy of ``region`` (the whole screen by default), safe to encode in a thread."""
        if region is None:
            return self.frame.copy()
        return self.frame[region.y0 : region.y1, region.x0 : region.x1].copy()
