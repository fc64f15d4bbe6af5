"""The pixels of a screen: received, copied, scaled, encoded. Encoding is CPU work without the GIL, for a thread."""

from __future__ import annotations

import math
import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from cambio_lab.errors import ActionError

from .base import Point, Region, Screenshot, Size

Frame = npt.NDArray[np.uint8]
"""``(height, width, 4)``, bytes blue, green, red, unused: the X server's own order, so nothing converts in between."""

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def encode(frame: Frame, kind: str = "png", size: Size | None = None) -> Screenshot:
    """Return ``frame`` as an image of ``kind``, scaled to ``size`` (Lanczos) if that differs.

    PNG is lossless and the fastest way here: up-filter in numpy and zlib-ng level 2 take 6 ms for 1280x800,
    Pillow's own encoder 37 ms.
    """
    begin = time.perf_counter()
    rgb = np.ascontiguousarray(frame[:, :, 2::-1])
    if size is not None and size != (rgb.shape[1], rgb.shape[0]):
        # Halving by whole steps first keeps small text readable and costs a third of a plain Lanczos.
        rgb = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
    if kind == "png":
        data = png(rgb)
    else:
        buffer = BytesIO()
        Image.fromarray(rgb).save(buffer, "JPEG" if kind == "jpeg" else "WEBP", quality=85)
        data = buffer.getvalue()
    height, width = rgb.shape[:2]
    return Screenshot(data, MEDIA_TYPES[kind], width, height, (time.perf_counter() - begin) * 1000)


def thumbnail(frame: Frame, size: Size) -> Screenshot:
    """A small JPEG of the whole ``frame``: a fifth of the time of :func:`encode`, for lists that show many."""
    begin = time.perf_counter()
    height, width = frame.shape[:2]
    image = Image.frombuffer("RGB", (width, height), np.ascontiguousarray(frame), "raw", "BGRX", 0, 1)
    buffer = BytesIO()
    image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.0).save(buffer, "JPEG", quality=80)
    return Screenshot(buffer.getvalue(), MEDIA_TYPES["jpeg"], *size, (time.perf_counter() - begin) * 1000)


def png(rgb: npt.NDArray[np.uint8]) -> bytes:
    """``(height, width, 3)`` as a PNG file: each row filtered against the one above it, then deflated."""
    from zlib_ng import zlib_ng

    height, width = rgb.shape[:2]
    rows = rgb.reshape(height, width * 3)
    filtered = np.empty((height, 1 + width * 3), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib_ng.compress(filtered, 2)
    return b"".join((b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header), _chunk(b"IDAT", body), _chunk(b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


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


LONG_EDGE, PATCH, PATCHES = 2576, 28, 4784
"""What an image may have on current models: pixels of the longer edge, and 28-pixel patches (visual tokens)."""


class View(NamedTuple):
    """``screen`` is the X screen's true size, ``image`` that of screenshots; each axis has its own scale."""

    screen: Size
    image: Size

    def to_screen(self, point: Point) -> Point:
        """The X pixel under the middle of a screenshot's pixel. ``ActionError`` outside of it; nothing is clamped."""
        x, y = point
        width, height = self.image
        if not (0 <= x < width and 0 <= y < height):
            raise ActionError(f"({x}, {y}) is outside the {self.image} screen.")
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
