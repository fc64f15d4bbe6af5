"""Make every content block acceptable to the service before it joins the history, where it would be sent for ever."""

from __future__ import annotations

import io
import re

from ...desktop.base import Screenshot

MAX_TEXT = 200_000  # characters of one block
MAX_IMAGE_BYTES = 3_700_000  # base64 makes a third more of it; the strictest service takes 5 MB
QUALITIES = (90, 75, 50, 25)
UNSENDABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def valid_text(text: str) -> str:
    """Return ``text`` bounded and without control characters and lone surrogates; ``""`` when it is blank."""
    if len(text) > MAX_TEXT:
        text = f"{text[: MAX_TEXT // 2]}\n[... shortened ...]\n{text[-MAX_TEXT // 2 :]}"
    text = UNSENDABLE.sub("\ufffd", text)
    return text if text.strip() else ""


def valid_image(image: Screenshot) -> Screenshot:
    """Return ``image`` within the byte limit, as JPEG where it is over; its size in pixels stays the same."""
    if len(image.data) <= MAX_IMAGE_BYTES:
        return image
    from PIL import Image

    with Image.open(io.BytesIO(image.data)) as opened:
        pixels = opened.convert("RGB")
    for quality in QUALITIES:
        out = io.BytesIO()
        pixels.save(out, "JPEG", quality=quality)
        if out.tell() <= MAX_IMAGE_BYTES:
            break
    return Screenshot(out.getvalue(), "image/jpeg", image.width, image.height, image.encode_ms)
