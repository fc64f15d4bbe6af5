"""Images that people send with a message: decoded and encoded again, as large as the model sees, stored as files.

A client uploads an image and then names it in a message by its digest. A photo's metadata (place, camera) is dropped.
"""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cambio_lab.agent.models import ImageLimits, resolve
from cambio_lab.desktop.base import Screenshot, Size
from cambio_lab.desktop.screen.view import fit_model
from cambio_lab.errors import InvalidRequest
from cambio_lab.settings import Settings
from cambio_lab.store import Store

from .checks import invalid
from .config import SessionConfig

if TYPE_CHECKING:
    from PIL import Image

MOST, MOST_WAITING = 20, 100
"""Images of one message, and uploaded ones of a session that no message needs to name."""
MAX_UPLOAD_BYTES, MAX_PIXELS = 20 * 1024**2, 50_000_000
MAX_PNG_BYTES = 2_000_000
"""A larger one becomes a JPEG."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


class Uploads:
    """The images of one session that its messages may name."""

    def __init__(self, store: Store, config: SessionConfig, settings: Settings) -> None:
        self._store = store
        self._limits = resolve(config.model or settings.model, config.platform or settings.platform).images
        self._waiting: dict[str, dict[str, Any]] = {}

    async def take(self, data: bytes) -> dict[str, Any]:
        """Store an image; return ``sha256``, ``media_type``, ``width`` and ``height`` of what is stored."""
        encoded, media_type, size = await asyncio.to_thread(fit, data, self._limits)
        sha256 = await self._store.screenshots.put(encoded, media_type)
        found = {"sha256": sha256, "media_type": media_type, "width": size.width, "height": size.height}
        self._waiting[sha256] = found
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return found

    async def named(self, digests: object) -> tuple[list[dict[str, Any]], list[tuple[bytes, str]]]:
        """Return what a message's ``images`` are, as they are noted and as they are sent to the model."""
        if not isinstance(digests, Sequence) or isinstance(digests, str) or len(digests) > MOST:
            raise invalid("images", f"must be a list of at most {MOST} digests")
        rows, contents = [], []
        for digest in digests:
            row = self._waiting.get(digest) if isinstance(digest, str) else None
            found = await self._store.screenshots.read(row["sha256"]) if row else None
            if row is None or found is None:
                raise invalid("images", "names an image that was not uploaded to this session")
            rows.append(row)
            contents.append(found)
        return rows, contents

    async def screenshot(self, digest: str) -> Screenshot:
        """Return an uploaded image as a function's result has it."""
        [row], [(data, media_type)] = await self.named([digest])
        return Screenshot(data, media_type, row["width"], row["height"])


def fit(data: bytes, limits: ImageLimits) -> tuple[bytes, str, Size]:
    """Return an image of unknown origin as the model takes it: its bytes, media type and size."""
    from PIL import Image, ImageOps

    if len(data) > MAX_UPLOAD_BYTES:
        raise InvalidRequest(f"The image has more than {MAX_UPLOAD_BYTES} bytes.", details={"image": "too large"})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is tighter
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise InvalidRequest(
                        f"The image has {image.width}x{image.height} pixels; the limit is {MAX_PIXELS} in all.",
                        details={"image": "too large"},
                    )
                photo = image.format == "JPEG"
                upright = ImageOps.exif_transpose(image).convert("RGB" if photo else "RGBA")
    except InvalidRequest:
        raise
    except Exception as error:  # what Pillow raises for hostile bytes has no common base
        raise InvalidRequest(
            f"The image cannot be decoded ({type(error).__name__}).",
            hint="PNG, JPEG, WebP and GIF are known.",
            details={"image": "cannot be decoded"},
        ) from None
    size = fit_model(Size(*upright.size), min(limits.edge, limits.many_edge), limits.tokens)
    if size != upright.size:
        upright = upright.resize(size, Image.Resampling.LANCZOS)
    return *_encode(upright, photo), size


def _encode(image: Image.Image, photo: bool) -> tuple[bytes, str]:
    out = io.BytesIO()
    if not photo:
        image.save(out, "PNG")
        if out.tell() <= MAX_PNG_BYTES:
            return out.getvalue(), "image/png"
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue(), "image/jpeg"
