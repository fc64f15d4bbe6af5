"""Images in a request: their limits, their price in tokens, their pixels."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from PIL import Image

from .models import TOOLSET, Model
from .refusal import Refused

MAX_BASE64 = 10 * 1024 * 1024
MAX_SIDE = 8000
MANY, MANY_SIDE = 20, 2000
_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}


class Measured:
    """Sizes of images by the digest of their base64 text: a history repeats the same images in every request."""

    def __init__(self, keep: int = 4096) -> None:
        self._sizes: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._keep = keep

    def size(self, source: dict[str, Any], path: str) -> tuple[int, int]:
        """Width and height in pixels; :class:`Refused` when it is not the image that it claims to be."""
        data, claimed = source.get("data"), source.get("media_type")
        if not isinstance(data, str) or not data:
            raise Refused(f"{path}.source.base64.data: Field required")
        key = (hashlib.sha256(data.encode()).hexdigest(), str(claimed))
        if key not in self._sizes:
            self._sizes[key] = _measure(data, claimed, path)
            if len(self._sizes) > self._keep:
                self._sizes.popitem(last=False)
        return self._sizes[key]


def _measure(data: str, claimed: object, path: str) -> tuple[int, int]:
    if claimed not in _FORMATS.values():
        raise Refused(f"{path}.source.base64.media_type: Input should be one of {', '.join(_FORMATS.values())}")
    if len(data) > MAX_BASE64:
        raise Refused(f"{path}.source.base64: image exceeds 10 MB maximum: {len(data)} bytes > {MAX_BASE64} bytes")
    try:
        raw = base64.b64decode(data, validate=True)
    except ValueError:  # binascii.Error, or characters outside ASCII
        raise Refused(f"{path}.source.base64.data: Invalid base64 data") from None
    try:
        with Image.open(io.BytesIO(raw)) as image:
            actual, size = _FORMATS.get(str(image.format)), image.size
            image.load()
    except (OSError, SyntaxError, ValueError):
        raise Refused(f"{path}.source.base64.data: Could not process image") from None
    if actual != claimed:
        raise Refused(
            f"{path}.source.base64.data: Image does not match the provided media type {claimed}; it is {actual}"
        )
    return size


def tokens(width: int, height: int, model: Model) -> int:
    """What the image costs; older models shrink it to their own budget first."""
    count = math.ceil(width / 28) * math.ceil(height / 28)
    return min(count, 4784 if model.high_resolution else 1568)


def walk(messages: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every image block: its path, the block, and whether it stands in a tool result."""
    for i, message in enumerate(messages):
        content = message["content"]
        for j, block in enumerate(content if isinstance(content, list) else ()):
            if block["type"] == "image":
                yield f"messages.{i}.content.{j}", block, False
            elif block["type"] == "tool_result" and isinstance(block.get("content"), list):
                for k, inner in enumerate(block["content"]):
                    if isinstance(inner, dict) and inner.get("type") == "image":
                        yield f"messages.{i}.content.{j}.content.{k}", inner, True


def check(messages: list[dict[str, Any]], tools: list[dict[str, Any]], model: Model, measured: Measured) -> None:
    """Refuse what is over a limit: count, bytes, sides, and on the toolset also the token budget."""
    found = list(walk(messages))
    if len(found) > model.max_images:
        raise Refused(f"Too many images: {len(found)} images > {model.max_images} maximum")
    toolset = any(tool.get("type") == TOOLSET for tool in tools)
    limit = MANY_SIDE if len(found) > MANY else MAX_SIDE
    too_large = []
    for path, block, in_result in found:
        source = block.get("source")
        if not isinstance(source, dict) or source.get("type") not in {"base64", "url", "file"}:
            raise Refused(f"{path}.source: Input should be base64, url or file")
        if source["type"] != "base64":
            raise Refused(f"{path}.source: this stand-in reads base64 images only")
        width, height = measured.size(source, path)
        if max(width, height) > limit:
            too_large.append(path)
        edge, budget = (2576, 4784) if model.high_resolution else (1568, 1568)
        spent = math.ceil(width / 28) * math.ceil(height / 28)
        strict = block.get("transformations") == {"oversized_image": "error"}
        if in_result and (toolset or strict) and (max(width, height) > edge or spent > budget):
            raise Refused(
                f"{path}: image of {width}x{height} pixels is larger than this model accepts "
                f"in a computer tool result ({edge} px, {budget} tokens)"
            )
    if too_large:
        raise Refused(
            f"{too_large[0]}: At least one of the image dimensions exceed max allowed size: {limit} pixels",
            details={
                "error_code": "image_dimensions_too_large",
                "max_side_length_pixels": limit,
                "paths": too_large,
            },
        )
