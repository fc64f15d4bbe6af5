"""From the X screen to the images that the model sees, and back."""

from __future__ import annotations

import math
from typing import NamedTuple

from cambio_lab.errors import ActionError

from ..base import Point, Region, Size

LONG_EDGE, PATCH, PATCHES = 2576, 28, 4784
"""What an image may have on current models: pixels of the longer edge, and 28-pixel patches (visual tokens)."""


class View(NamedTuple):
    """``screen`` is the X screen's true size, ``image`` that of screenshots; each axis has its own scale."""

    screen: Size
    image: Size

    @property
    def scaled(self) -> bool:
        return self.screen != self.image

    def to_screen(self, point: Point) -> Point:
        """The X pixel under the middle of a screenshot's pixel. ``ActionError`` outside of it; nothing is clamped."""
        x, y = point
        width, height = self.image
        if not (0 <= x < width and 0 <= y < height):
            raise ActionError(f"({x}, {y}) is outside the {self.image} screen.")
        if not self.scaled:
            return Point(x, y)
        return Point(
            min(int((x + 0.5) * self.screen.width / width), self.screen.width - 1),
            min(int((y + 0.5) * self.screen.height / height), self.screen.height - 1),
        )

    def to_image(self, point: Point) -> Point:
        """The screenshot's pixel that shows an X pixel."""
        return Point(point.x * self.image.width // self.screen.width, point.y * self.image.height // self.screen.height)

    def region_to_screen(self, region: Region) -> Region:
        """A region of the screenshot as a region of the X screen, at least one pixel large."""
        x0, y0, x1, y1 = region
        width, height = self.image
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ActionError(
                f"The region ({x0}, {y0}, {x1}, {y1}) does not lie in the {self.image} screen.",
                hint="It must have x0 < x1 and y0 < y1.",
            )
        sx, sy = self.screen.width / width, self.screen.height / height
        left, top = int(x0 * sx), int(y0 * sy)
        return Region(left, top, max(left + 1, math.ceil(x1 * sx)), max(top + 1, math.ceil(y1 * sy)))


def fit_model(size: Size, long_edge: int = LONG_EDGE, patches: int = PATCHES) -> Size:
    """The largest size of about the same shape that a model takes unscaled."""
    width, height = size
    scale = min(1.0, long_edge / max(size))
    while True:
        fitted = Size(max(1, round(width * scale)), max(1, round(height * scale)))
        if max(fitted) <= long_edge and math.ceil(fitted.width / PATCH) * math.ceil(fitted.height / PATCH) <= patches:
            return fitted
        scale *= 0.998


def fit_inside(size: Size, frame: Size) -> Size:
    """``size`` scaled, up or down, to touch ``frame`` from inside; the aspect is kept."""
    scale = min(frame.width / size.width, frame.height / size.height)
    return Size(max(1, round(size.width * scale)), max(1, round(size.height * scale)))
