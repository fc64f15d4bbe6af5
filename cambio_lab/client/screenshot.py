"""Screenshots: shown in a cell, sent to the agent, and those of a run that is an example for it."""

from __future__ import annotations

import asyncio
import base64
import io
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import CambioError, InvalidRequest
from .display import clip, describe
from .rest import Rest

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..reports import Run

_MAGIC = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF")
LARGEST_PNG = 150_000
PATIENCE_SECONDS = 3.0
"""Longest wait for a rate limit; a turn does not wait a minute for a screenshot."""
TOKENS = 6_000
FRAME_WIDTH, MOST_FRAMES = 512, 12
BYTES_PER_TOKEN, PATCH = 3, 28
"""Of text, on the high side (English has about four bytes a token); pixels of an image, either way."""
LOOKS = frozenset({"screenshot", "zoom", "cursor_position", "wait"})


@dataclass(frozen=True, repr=False)
class Screenshot:
    """Encoded bytes (PNG, JPEG or WebP) and what they show in words."""

    data: bytes = field(repr=False)
    media_type: str = "image/png"
    alt: str = "Screenshot of the desktop"

    @cached_property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` in pixels."""
        with _open(self.data) as image:
            return int(image.width), int(image.height)

    def image(self) -> Image:
        """A Pillow image, decoded, of mode RGB."""
        with _open(self.data) as image:
            decoded: Image = image.convert("RGB")
        return decoded

    def save(self, path: str | Path) -> Path:
        """Write the bytes as they came; returns the path."""
        target = Path(path)
        target.write_bytes(self.data)
        return target

    def jpeg(self, *, width: int | None = None, quality: int = 80) -> Screenshot:
        """A JPEG at most ``width`` pixels wide; each size is made once."""
        key = (width, quality)
        if key not in self._reduced:
            image, target = self.image(), io.BytesIO()
            if width is not None and image.width > width:
                image = image.resize((width, max(1, round(image.height * width / image.width))), 1)  # 1: Lanczos
            image.save(target, "JPEG", quality=quality, optimize=True)
            self._reduced[key] = Screenshot(target.getvalue(), "image/jpeg", self.alt)
        return self._reduced[key]

    @cached_property
    def _reduced(self) -> dict[tuple[int | None, int], Screenshot]:
        return {}

    @cached_property
    def data_uri(self) -> str:
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """A PNG small enough for a saved notebook: beyond 150 KB with 256 colours, which leaves text sharp."""
        data = self.data
        if self.media_type != "image/png" or len(data) > LARGEST_PNG:
            from PIL.Image import Dither

            image, target = self.image(), io.BytesIO()
            if len(data) > LARGEST_PNG:
                image = image.quantize(256, dither=Dither.NONE)
            image.save(target, "PNG")
            data = target.getvalue()
        width, height = self.size
        return data, {"width": width, "height": height, "alt": self.alt}

    def __repr__(self) -> str:
        width, height = self.size
        return f"{self.alt} ({width}x{height})"


def _open(data: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(data))


ImageSource: TypeAlias = "str | Path | bytes | Screenshot | Image"


async def put_image(rest: Rest, session_path: str, image: ImageSource) -> str:
    """Upload an image for a message, or for a function's result; return its digest."""
    content = await asyncio.to_thread(encoded, image)
    headers = {"Content-Type": "application/octet-stream"}
    response = await rest.request("PUT", f"{session_path}/images", content=content, headers=headers)
    return str(response.json()["sha256"])


def encoded(image: ImageSource) -> bytes:
    """Return the bytes of an image, whatever it is given as; :class:`InvalidRequest` for anything else."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Screenshot):
        return image.data
    if isinstance(image, str | Path):
        return Path(image).read_bytes()
    if not is_image(image):
        raise InvalidRequest(f"{type(image).__name__} is no image.", hint="Give a path, bytes or a PIL image.")
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def is_image(value: object) -> bool:
    """Whether a value is shown to the agent as an image: PIL's, a screenshot, or the bytes of an image file."""
    from PIL import Image

    return isinstance(value, Image.Image | Screenshot) or (isinstance(value, bytes) and value.startswith(_MAGIC))


async def fetch(rest: Rest, path: str, alt: str) -> Screenshot | None:
    """Return the screenshot at a URL path that the server gave; ``None`` when it does not give it (any more)."""
    base = rest.address.base_path
    relative = "/" + path.removeprefix(base).lstrip("/")
    try:
        data, media_type = await rest.bytes(relative, patience=PATIENCE_SECONDS)
    except CambioError:
        return None
    return Screenshot(data, media_type or "image/png", alt)


@dataclass(frozen=True)
class Example:
    """``text`` and ``images`` go with a message; ``tokens`` is about what they cost."""

    text: str
    images: list[Screenshot]
    tokens: int


def example(run: Run, tokens: int = TOKENS) -> Example:
    """Return ``run`` as an example of at most ``tokens``: up to half of them screenshots, the rest what was done."""
    rows = [row for row in run.rows if row["action"] not in LOOKS and row["status"] == "completed"]
    frames = _frames(run, tokens // 2)
    cost = sum(map(_cost, frames))
    asked = clip(" / ".join(run.prompts) or run.name, 400)
    about = f"An example of how such a task was done before ({asked}):"
    sizes = (f"{step['width']}x{step['height']}" for step in reversed(run.contents.steps) if step.get("width"))
    note = (
        "\nThe images show the screen during it, in order and reduced; the places above are those of "
        f"{next(sizes, 'the whole')} pixels. Do the same in spirit: places may differ now."
    )
    note = note if frames else ""
    lines = [f"{number}. {describe(row['action'], row['arguments'])}" for number, row in enumerate(rows, 1)]
    left = (tokens - cost) * BYTES_PER_TOKEN - len(f"{about}{note}\n({len(lines)} more steps)".encode())
    kept = sum(size <= left for size in accumulate(len(line.encode()) + 1 for line in lines))
    more = [f"({len(lines) - kept} more steps)"] if kept < len(lines) else []
    text = "\n".join([about, *lines[:kept], *more]) + note
    return Example(text, frames, cost - (-len(text.encode()) // BYTES_PER_TOKEN))


def _frames(run: Run, tokens: int) -> list[Screenshot]:
    """Return screenshots of the run, evenly spread, as many as ``tokens`` allow; the last is among them."""
    digests = list(
        dict.fromkeys(row["screenshot"] for row in run.rows if row["screenshot"] and row["action"] != "zoom")
    )
    if not digests:
        return []
    last = _frame(run, digests[-1])
    count = min(MOST_FRAMES, len(digests), tokens // _cost(last))
    if count < 2:
        return [last] * count
    places = [round(index * (len(digests) - 1) / (count - 1)) for index in range(count)]
    return [_frame(run, digests[place]) for place in places]


def _frame(run: Run, digest: str) -> Screenshot:
    return Screenshot(run.screenshot(digest), "image/png", "A screen of the example").jpeg(
        width=FRAME_WIDTH, quality=70
    )


def _cost(frame: Screenshot) -> int:
    """Return what the service counts: a token for each patch that an image begins."""
    width, height = (-(-side // PATCH) for side in frame.size)
    return width * height
