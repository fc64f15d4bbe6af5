"""Pictures of a run for people: reduced, with the actions that were taken on them drawn on them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .contents import Json
from .rows import points

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

ACCENT = (255, 64, 64)
HALO = (255, 255, 255)
_ARROWS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


@dataclass
class Scene:
    """A screenshot and the steps that were decided on looking at it. ``index`` counts scenes from 0."""

    index: int
    digest: str | None
    steps: list[Json] = field(default_factory=list)


def scenes(rows: Sequence[Json]) -> list[Scene]:
    """The run as pictures: each step belongs to the picture that the model had seen last before it."""
    result = [Scene(0, None)]
    for row in rows:
        result[-1].steps.append(row)
        if row["screenshot"] is not None:
            result.append(Scene(len(result), row["screenshot"]))
    return result


def draw(data: bytes, steps: Sequence[Json], width: int, quality: int = 72) -> bytes:
    """``data`` reduced to ``width`` pixels as a JPEG, with each step's pointer action drawn and numbered."""
    from PIL import Image, ImageDraw

    with Image.open(io.BytesIO(data)) as opened:
        image = opened.convert("RGB")
    scale = min(1.0, width / image.width)
    if scale < 1:
        image = image.resize((width, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    pen, font = ImageDraw.Draw(image), _font()
    for step in steps:
        found = [(x * scale, y * scale) for x, y in points(step["action"], step["arguments"])]
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


def pictures(found: Sequence[Scene], find: Callable[[str], bytes | None], *, budget: int = 4_000_000) -> list[bytes]:
    """A JPEG for each scene that has a picture, else ``b""``; together at most about ``budget`` bytes."""
    count = max(1, sum(scene.digest is not None for scene in found))
    width = next((w for w, per in ((960, 70_000), (720, 42_000), (560, 27_000)) if count * per <= budget), 400)
    result = []
    for scene in found:
        data = find(scene.digest) if scene.digest is not None else None
        result.append(draw(data, scene.steps, width) if data else b"")
    return result


def data_uri(data: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
