"""A run for people: screenshots with the actions that were taken on them drawn in, and templates that escape."""

from __future__ import annotations

import base64
import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import BundleRefused
from . import Json
from .rows import points

if TYPE_CHECKING:
    from jinja2 import Environment
    from PIL import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

log = logging.getLogger(__name__)
MAX_PIXELS = 64_000_000
"""Of one screenshot; a display of 8K has 33 million."""
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
ACCENT = (255, 64, 64)
HALO = (255, 255, 255)
_ARROWS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


@contextmanager
def opened(data: bytes, name: str = "a screenshot") -> Iterator[Image.Image]:
    """Open an encoded image of unknown origin: no other format, no more than :data:`MAX_PIXELS`.

    :class:`~cambio_lab.errors.BundleRefused` when it cannot be decoded, here or within the block.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is tighter
            image = Image.open(io.BytesIO(data), formats=tuple(FORMATS.values()))
        if image.width * image.height > MAX_PIXELS:
            raise BundleRefused(f"{name} claims {image.width}x{image.height} pixels; the limit is {MAX_PIXELS} in all")
        with image:
            yield image
    except Image.DecompressionBombError:
        raise BundleRefused(f"{name} claims too many pixels; the limit is {MAX_PIXELS}") from None
    except (OSError, ValueError, SyntaxError, struct.error, zlib.error, EOFError, IndexError, OverflowError) as error:
        raise BundleRefused(f"{name} cannot be decoded: {type(error).__name__}") from None


def check_image(data: bytes, media_type: str, name: str) -> None:
    """Refuse what is not an image of this type or has too many pixels; only the header is decoded."""
    try:
        with opened(data, name) as image:
            if image.format == FORMATS[media_type]:
                return
    except BundleRefused as error:
        if "pixels" in error.message:
            raise
    raise BundleRefused(f"{name} is not a {name.rpartition('.')[2]} image")


@dataclass
class Scene:
    """A screenshot and the steps that were decided on looking at it. ``index`` counts scenes from 0."""

    index: int
    digest: str | None
    steps: list[Json] = field(default_factory=list)


def scenes(rows: Sequence[Json]) -> list[Scene]:
    """Return the run as scenes: each step belongs to the screenshot that the model had seen last before it."""
    result = [Scene(0, None)]
    for row in rows:
        result[-1].steps.append(row)
        if row["screenshot"] is not None:
            result.append(Scene(len(result), row["screenshot"]))
    return result


def draw(data: bytes, steps: Sequence[Json], width: int, quality: int = 72) -> bytes:
    """Return ``data`` reduced to ``width`` pixels as a JPEG, with each step's pointer action drawn and numbered."""
    from PIL import Image, ImageDraw

    with opened(data) as encoded:
        image = encoded.convert("RGB")
    scale = min(1.0, width / image.width)
    if scale < 1:
        image = image.resize((width, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    pen, font = ImageDraw.Draw(image), _font()
    for step in steps:
        found = [(x * scale, y * scale) for x, y in points(step["arguments"])]
        if found:
            _mark(pen, font, found, step)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(13)


def _mark(pen: ImageDraw, font: FreeTypeFont | ImageFont, found: list[tuple[float, float]], step: Json) -> None:
    x, y = found[-1]
    if len(found) == 2:
        _arrow(pen, found[0], found[1])
    elif step["action"] == "scroll":
        dx, dy = _ARROWS.get(str(step["arguments"].get("scroll_direction")), (0, 1))
        _arrow(pen, (x, y), (x + dx * 40, y + dy * 40))
    for radius, color, line in ((11, HALO, 4), (11, ACCENT, 2)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color, width=line)
    pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=ACCENT)
    label = str(step["step"])
    left, top, right, bottom = pen.textbbox((x + 13, y + 6), label, font=font)
    pen.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=ACCENT)
    pen.text((x + 13, y + 6), label, fill=HALO, font=font)


def _arrow(pen: ImageDraw, start: tuple[float, float], end: tuple[float, float]) -> None:
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    head = [(end[0] - 12 * math.cos(angle + turn), end[1] - 12 * math.sin(angle + turn)) for turn in (-0.45, 0.45)]
    for color, line in ((HALO, 5), (ACCENT, 2)):
        pen.line([start, end], fill=color, width=line)
        pen.line([head[0], end, head[1]], fill=color, width=line)


def draw_scenes(found: Sequence[Scene], find: Callable[[str], bytes | None], *, budget: int = 4_000_000) -> list[bytes]:
    """Return a JPEG for each scene that has a screenshot, else ``b""``; together at most about ``budget`` bytes."""
    count = max(1, sum(scene.digest is not None for scene in found))
    width = next((w for w, per in ((960, 70_000), (720, 42_000), (560, 27_000)) if count * per <= budget), 400)
    return [draw_scene(scene, find, width) for scene in found]


def draw_scene(scene: Scene, find: Callable[[str], bytes | None], width: int) -> bytes:
    """Return the scene as a JPEG, or ``b""`` when there is no screenshot or it cannot be decoded."""
    data = find(scene.digest) if scene.digest is not None else None
    if not data:
        return b""
    try:
        return draw(data, scene.steps, width)
    except BundleRefused as error:
        log.warning("screenshot left out: digest=%s error=%s", scene.digest, error.message)
        return b""


def data_uri(data: bytes, media_type: str = "image/jpeg") -> str:
    """Return ``data`` as the address of an image."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@cache
def _templates(part: str) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader(f"cambio_lab.{part}", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


def render(part: str, template: str, /, **values: Any) -> str:
    """Return a template of ``cambio_lab.<part>`` with these values, each escaped."""
    return _templates(part).get_template(f"{template}.html.j2").render(**values).lstrip()
