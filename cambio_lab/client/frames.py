"""Pictures of steps and of the desktop now, fetched on the portal's loop and reduced for display."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..errors import CambioError
from ..jupyter.record import FIRST_SIZE, MOST_FRAMES, thin
from .rest import Rest
from .screenshot import Picture
from .turn import Step

FRAME_WIDTH = 640
PATIENCE_SECONDS = 3.0
"""Longest wait for a rate limit; a turn does not wait a minute for a picture."""


async def fetch(rest: Rest, step: Step) -> bool:
    """Fill ``step.picture``; false when the server does not give it: a frame less, the step itself is known."""
    if step.picture is not None:
        return True
    try:
        data, media_type = await rest.bytes(relative(step.image_path, rest), patience=PATIENCE_SECONDS)
    except CambioError:
        return False
    full = Picture(data, media_type or "image/png", f"The screen after step {step.number}")
    step.picture = await asyncio.to_thread(_reduce, full)
    return True


def _reduce(full: Picture) -> Picture:
    """For the running cell; the size that a record usually takes is made along with it, off the kernel's thread."""
    picture = full.jpeg(width=FRAME_WIDTH, quality=65)
    width, quality = FIRST_SIZE
    picture.jpeg(width=width, quality=quality)
    return picture


async def fetch_some(rest: Rest, steps: Sequence[Step]) -> list[Step]:
    """Fetch an even choice of as many pictures as a filmstrip shows; returns the steps that have one."""
    return [step for step in thin([step for step in steps if step.image_path], MOST_FRAMES) if await fetch(rest, step)]


async def fetch_now(rest: Rest, session_id: str, alt: str) -> Picture | None:
    """The desktop now, full size; ``None`` when there is no desktop any more."""
    try:
        data, media_type = await rest.bytes(f"/sessions/{session_id}/screenshot", patience=PATIENCE_SECONDS)
    except CambioError:
        return None
    return Picture(data, media_type or "image/png", alt)


def relative(path: str, rest: Rest) -> str:
    """A URL path that the server gave, relative to the base URL that the client already has."""
    base = rest.address.base_path
    return "/" + path.removeprefix(base).lstrip("/") if path.startswith(base) else path
