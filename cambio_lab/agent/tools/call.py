"""One tool call and what came of it, the same for every tool."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...desktop.base import Screenshot
from ...events import Timing
from .content import valid_text

COMPUTER = "computer"
EMPTY = "(only white space)"
HALTED = "Not executed: an earlier computer action in this turn failed."
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
    """What a call left for the model: text and at most one picture. A failed one is text only."""

    text: str = ""
    picture: Screenshot | None = None
    is_error: bool = False
    timing: Timing = Timing()
    changed: bool = False
    """The screen may look different now, and the model has not seen it."""
    lines: list[str] = field(default_factory=list)
    """The text blocks, when there is more than one."""


class Tool(Protocol):
    """Something with entries in ``tools[]`` that carries out the calls it recognises."""

    def definitions(self) -> list[dict[str, Any]]:
        """The entries of ``tools[]``."""

    def serves(self, call: Call) -> bool:
        """Whether this call is for this tool; dispatch is on (``toolset_name``, ``name``)."""

    def member(self, call: Call) -> str:
        """The name that people and the approval policy know the call by."""

    def time_limit(self, call: Call) -> float:
        """Seconds after which the loop gives the call up."""

    async def run(self, call: Call) -> Outcome:
        """Carry it out. Only :class:`~cambio_lab.errors.DesktopLost` and cancellation come out as exceptions."""


def failed(text: str) -> Outcome:
    """A failure that the model may read: a fixed phrase or one of our own errors, never an exception's text."""
    return Outcome(text=text or "The call failed.", is_error=True)


def image_block(picture: Screenshot) -> dict[str, Any]:
    """The content block of a picture."""
    data = base64.b64encode(picture.data).decode("ascii")
    return {"type": "image", "source": {"type": "base64", "media_type": picture.media_type, "data": data}}


def result_block(call: Call, outcome: Outcome) -> dict[str, Any]:
    """The ``tool_result`` that answers ``call``: ``toolset_name`` is echoed, errors are text only."""
    content: list[dict[str, Any]] = [
        {"type": "text", "text": text} for line in outcome.lines or [outcome.text] if (text := valid_text(line))
    ]
    if outcome.picture is not None and not outcome.is_error:
        content.append(image_block(outcome.picture))
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


def spoken(arguments: Mapping[str, Any], key: str) -> str:
    """A text argument, or an empty string."""
    value = arguments.get(key)
    return value if isinstance(value, str) else ""
