"""A run for people, step by step: flat rows, words, screenshots with the actions drawn in, templates that escape."""

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
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import BundleRefused, load_optional
from ..events import Usage
from . import Contents, Json

if TYPE_CHECKING:
    import pandas as pd
    from jinja2 import Environment
    from PIL import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

COLUMNS = (
    *("step", "turn", "action", "arguments", "status", "model_ms", "action_ms", "settle_ms", "encode_ms", "total_ms"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "thinking_tokens", "cost_usd"),
    *("started_at", "screenshot", "text", "said", "actor", "unseen_screenshot", "unseen_tree"),
)
_USAGE = frozenset(item.name for item in fields(Usage))


def rows(contents: Contents) -> list[Json]:
    """Return a row with :data:`COLUMNS` for each step, in order.

    Times are milliseconds (``started_at``: epoch seconds), ``screenshot`` is a digest or ``None``. What a reply of
    the model cost and ``said`` is in the row of its first call. ``unseen_screenshot`` and ``unseen_tree`` are what the
    session observed and the model was not shown.
    """
    found = _replies(contents)
    unseen = {event["tool_use_id"]: event for event in contents.events if event["kind"] == "Unseen"}
    calls = ((step, step["tool_use_id"]) for step in contents.steps)
    return [_row(step, found.get(call, {}), unseen.get(call, {})) for step, call in calls]


def _row(step: Json, reply: Json, unseen: Json) -> Json:
    timing, usage = step["timing"], reply.get("usage", Usage())
    return {
        "step": step["step"],
        "turn": reply.get("turn", 0),
        "action": step["tool"],
        "arguments": step["arguments"],
        "status": step["status"],
        "model_ms": reply.get("model_ms", 0.0),
        **{f"{part}_ms": timing.get(part, 0.0) for part in ("action", "settle", "encode", "total")},
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_input_tokens,
        "cache_write_tokens": usage.cache_creation_input_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "cost_usd": usage.cost_usd,
        "started_at": step.get("started_at", 0.0),
        "screenshot": step.get("sha256"),
        "text": step.get("text", ""),
        "said": reply.get("text", ""),
        "actor": step.get("actor", "agent"),
        "unseen_screenshot": (unseen.get("image") or {}).get("sha256"),
        "unseen_tree": unseen.get("tree", ""),
    }


def _replies(contents: Contents) -> dict[str, Json]:
    """Return the turn of each call by its id; for the first call of a reply also its text, time and usage."""
    found: dict[str, Json] = {}
    pending: Json = {}
    turn = 0
    for event in contents.events:
        kind = event["kind"]
        if kind == "UserMessage":
            turn += 1
        elif kind == "ModelReplied":
            pending = {"model_ms": event["model_ms"], "text": event["text"], "usage": usage_of(event["usage"])}
        elif event.get("actor") == "human":
            found[event["tool_use_id"]] = {"turn": turn}
        elif kind == "ToolStarted" or (kind == "ToolFinished" and event["tool_use_id"] not in found):
            found[event["tool_use_id"]] = {**pending, "turn": turn}
            pending = {}
    return found


def usage_of(values: Json) -> Usage:
    """Return a recorded usage; unknown names are left out."""
    return Usage(**{name: value for name, value in (values or {}).items() if name in _USAGE})


def load_pandas() -> Any:
    """Return pandas; :class:`~cambio_lab.errors.ConfigurationError` says how to install it, and what needs none."""
    hint = 'Install it with: pip install "cambio-lab[analysis]". `run.rows` is the same as a list of dicts.'
    return load_optional("pandas", "Tables need pandas.", hint)


def frame(contents: Contents) -> pd.DataFrame:
    """Return the rows as a DataFrame; ``started_at`` becomes UTC time. Needs pandas (the ``analysis`` extra)."""
    pd = load_pandas()
    table = pd.DataFrame(rows(contents), columns=list(COLUMNS))
    table["started_at"] = pd.to_datetime(table["started_at"], unit="s", utc=True)
    return table.set_index("step", drop=False)


def points(arguments: Json) -> list[tuple[int, int]]:
    """Return where an action points, in pixels: no place, one, or the two ends of a drag."""
    found = []
    for name, of_browser in (("start_coordinate", "from"), ("coordinate", "target")):
        value: Any = arguments.get(name)
        if isinstance(target := arguments.get(of_browser), dict):  # a place in the page
            value = target.get("coordinate", [target.get("x"), target.get("y")])
        if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and abs(n) <= 100_000 for n in value):
            found.append((value[0], value[1]))
    return found


def shorten(words: str, longest: int) -> str:
    """Return at most ``longest`` characters."""
    return words if len(words) <= longest else words[: longest - 1] + "…"


def describe(action: str, arguments: Json, status: str = "completed") -> str:
    """Return an action in a few words, such as ``left_click (640, 400)`` or ``type 'hello' – denied``."""
    said = [f"({x}, {y})" for x, y in points(arguments)]
    for name, value in arguments.items():
        if name not in {"coordinate", "start_coordinate"} and value is not None:
            said.append(repr(value) if name in {"text", "command"} else f"{name}={value!r}")
    return f"{action} {' '.join(said)}".strip() + ("" if status in ("completed", "started") else f" – {status}")


def counted(number: float, noun: str) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return ``text`` on one line; what could steer a terminal or hide text is escaped, as in ``\\x1b``."""
    # The joiners are parts of words and emoji.
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else c.encode("unicode_escape").decode() for c in text)


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
    from PIL import Image, ImageDraw, ImageFont

    with opened(data) as encoded:
        image = encoded.convert("RGB")
    scale = min(1.0, width / image.width)
    if scale < 1:
        image = image.resize((width, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for step in steps:
        found = [(x * scale, y * scale) for x, y in points(step["arguments"])]
        if found:
            _mark(pen, font, found, step)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


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
