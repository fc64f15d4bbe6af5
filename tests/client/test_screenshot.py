"""Screenshots as a cell shows them."""

from __future__ import annotations

import io

import numpy
from PIL import Image

from cambio_lab.client.screenshot import LARGEST_PNG, Screenshot


def noisy() -> Screenshot:
    """An image that compresses badly, as a photograph on a desktop does."""
    pixels = numpy.random.default_rng(1).integers(0, 255, (100, 160, 3), dtype=numpy.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).resize((1280, 800), Image.Resampling.BILINEAR).save(target, "PNG")
    return Screenshot(target.getvalue(), "image/png", "Screen 1")


def test_screenshots_show_themselves() -> None:
    shot = noisy()
    assert len(shot.data) > LARGEST_PNG and repr(shot) == "Screen 1 (1280x800)"
    for shown in (shot, Screenshot(shot.jpeg().data, "image/jpeg", "Screen 1")):
        png, metadata = shown._repr_png_()
        assert png.startswith(b"\x89PNG") and metadata == {"width": 1280, "height": 800, "alt": "Screen 1"}
    assert len(shot._repr_png_()[0]) < len(shot.data) / 2
