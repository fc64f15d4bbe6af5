"""One tool call and its outcome, the same for every tool, as blocks that the service accepts."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...desktop.base import Screenshot
from ...events import Timing

MAX_TEXT = 200_000  # characters of one block
MAX_IMAGE_BYTES = 3_700_000  # base64 makes a third more of it; the strictest service takes 5 MB
QUALITIES = (90, 75, 50, 25)
UNSENDABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
COMPUTER, BROWSER = "computer", "browser"
EMPTY = "(only white space)"
TOO_LARGE = "(The image was too large to be sent.)"
HALTED = {
    COMPUTER: "Not executed: an earlier computer action in this turn failed.",
    BROWSER: "Not executed: an earlier action in this turn failed.",
}
"""The service's own words for each toolset."""
STOPPED = "Not executed: the user stopped the agent."
INTERRUPTED = "Interrupted: the user stopped the agent while this was running. It may have had part of its effect."
ENDED_EARLY = "Not executed: the turn ended early."
CUT_OFF = "Not executed: the reply was cut off at its token limit. Send the call again."
LIMIT = "Not executed: a limit of this session was reached."
CRASHED = "Interrupted: the server restarted. It is not known whether this ran; look before you repeat it."


@dataclass(frozen=True, slots=True)
class Call:
    """A ``tool_use`` block. ``toolset`` is the block's ``toolset_name``; ``block`` is the SDK's object, if any.

    ``arrived`` is false when the reply had not one event with arguments for it: they may have been lost on the way.
    """

    id: str
    name: str
    toolset: str | None
    arguments: dict[str, Any]
    block: Any = None
    arrived: bool = True


@dataclass(slots=True)
class Outcome:
    """What a call returns to the model: text and at most one image. A failed one is text only."""

    text: str = ""
    image: Screenshot | None = None
    is_error: bool = False
    timing: Timing = Timing()
    changed: bool = False
    """The screen may look different now, and the model has not seen it."""
    lines: list[str] = field(default_factory=list)
    """The text blocks, when there is more than one."""
    state: dict[str, Any] | None = None
    """The ``browser_state`` block of a browser call."""


class Tool(Protocol):
    """Something with entries in ``tools[]`` that carries out the calls it recognises."""

    def definitions(self) -> list[dict[str, Any]]:
        """Return the entries of ``tools[]``."""

    def serves(self, call: Call) -> bool:
        """Return whether this call is for this tool; dispatch is on (``toolset_name``, ``name``)."""

    def member(self, call: Call) -> str:
        """Return the name that people and the approval policy know the call by."""

    def time_limit(self, call: Call) -> float:
        """Return the seconds after which the loop cancels the call."""

    async def run(self, call: Call) -> Outcome:
        """Carry it out. Only :class:`~cambio_lab.errors.DesktopLost` and cancellation come out as exceptions."""


def failed(text: str) -> Outcome:
    """Return a failure that the model may read: a fixed phrase or one of our own errors, never an exception's text."""
    return Outcome(text=text or "The call failed.", is_error=True)


def image_block(image: Screenshot) -> dict[str, Any]:
    """Return the content block of an image."""
    data = base64.b64encode(image.data).decode("ascii")
    return {"type": "image", "source": {"type": "base64", "media_type": image.media_type, "data": data}}


def result_block(call: Call, outcome: Outcome) -> dict[str, Any]:
    """Return the ``tool_result`` that answers ``call``: ``toolset_name`` is echoed, errors are text only."""
    content: list[dict[str, Any]] = [
        {"type": "text", "text": text} for line in outcome.lines or [outcome.text] if (text := valid_text(line))
    ]
    if outcome.image is not None and not outcome.is_error:
        content.append(image_block(outcome.image))
    if outcome.state is not None and not outcome.is_error:
        content.append(outcome.state)
    if not content:
        content = [
            {"type": "text", "text": "The call failed." if outcome.is_error else EMPTY if outcome.text else "OK"}
        ]
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call.id, "content": content}
    if call.toolset is not None:
        block["toolset_name"] = call.toolset
    if outcome.is_error:
        block["is_error"] = True
    return block


def text_argument(arguments: Mapping[str, Any], key: str) -> str:
    """Return a text argument, or an empty string."""
    value = arguments.get(key)
    return value if isinstance(value, str) else ""


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
