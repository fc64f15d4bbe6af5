"""What the agent can do: what a tool is, a call of it, whether it needs approval, and its outcome as blocks."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ..desktop.base import Desktop, Screenshot
from ..errors import ActionError, DesktopError, DesktopLost, InvalidRequest
from ..events import Box, Timing, Unseen

log = logging.getLogger(__name__)

MAX_TEXT = 200_000  # characters of one block
MAX_IMAGE_BYTES = 3_700_000  # base64 makes a third more of it; the strictest service takes 5 MB
QUALITIES = (90, 75, 50, 25)
UNSENDABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
COMPUTER, BROWSER = "computer", "browser"
EMPTY = "(only white space)"
STOPPED = "Not executed: the user stopped the agent."
ENDED_EARLY = "Not executed: the turn ended early."
LIMIT = "Not executed: a limit of this session was reached."
CRASHED = "Interrupted: the server restarted. It is not known whether this ran; look before you repeat it."

ApprovalPolicy = Literal["never", "risky", "always"] | frozenset[str]
LOOKS = frozenset({"screenshot", "zoom", "cursor_position", "wait"})
CLICKS = frozenset({"left_click", "right_click", "middle_click", "double_click", "triple_click"})
POINTER = frozenset({"left_click_drag", "mouse_move", "left_mouse_down", "left_mouse_up", "scroll"})
KEYBOARD = frozenset({"type", "key", "hold_key"})
PASTES = frozenset({"middle_click"})
"""Clicks that insert text: a middle click pastes the selection, which a terminal executes at a line break."""
BROWSER_ACTS = frozenset({"form_input", "file_upload", "javascript_exec"})
BROWSER_MEMBERS = BROWSER_ACTS | {
    *("navigate", "list_tabs", "new_tab", "switch_tab", "close_tab", "read_page", "get_page_text", "find", "scroll_to"),
    *("hover", "read_console", "read_network"),
}
MEMBERS = LOOKS | CLICKS | POINTER | KEYBOARD
"""Of the computer toolset."""
SHELL = "bash"
ASK_USER, HAND_OVER = "ask_user", "hand_over"
NOTE = "Note: "
"""Begins what the agent is told that no person said."""
EDITOR = "str_replace_based_edit_tool"
EDITOR_READS = frozenset({"view"})
TOOL_NAMES = MEMBERS | BROWSER_MEMBERS | {SHELL, EDITOR}


@dataclass(frozen=True, slots=True)
class Call:
    """A ``tool_use`` block. ``toolset`` is the block's ``toolset_name``.

    ``arrived`` is false when the reply had not one event with arguments for it: they may have been lost on the way.
    """

    id: str
    name: str
    toolset: str | None
    arguments: dict[str, Any]
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
    box: Box | None = None
    """Where the element is that a browser call acted on."""


class Tool(Protocol):
    """Something with entries in ``tools[]`` that carries out the calls it recognises."""

    definitions: list[dict[str, Any]]
    """The entries of ``tools[]``; the same for as long as the session lives."""

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


@contextmanager
def refusing(
    name: str, place: str, refusal: Callable[[str], Exception], lost: Callable[[DesktopLost], None]
) -> Iterator[None]:
    """Turn what goes wrong in ``place`` into ``refusal(fixed words)``: exception texts never reach the model."""
    try:
        yield
    except ActionError as error:
        raise refusal(error.message) from error
    except DesktopLost as error:
        lost(error)
        raise refusal("The desktop is gone.") from error
    except TimeoutError as error:
        raise refusal(f"{name} took too long and was cancelled.") from error
    except DesktopError as error:
        raise refusal(f"The {place} could not do {name}.") from error
    except Exception as error:
        log.exception("%s failed inside the %s", name, place)
        raise refusal(f"{name} failed inside the {place}.") from error


def parse_policy(value: Any) -> ApprovalPolicy:
    """Return a policy: ``never``, ``risky``, ``always`` or names of tools; else :class:`InvalidRequest`."""
    if value in ("never", "risky", "always"):
        return value  # type: ignore[no-any-return]
    if isinstance(value, frozenset | set | list | tuple) and all(isinstance(item, str) for item in value):
        names = frozenset(value)
        if unknown := names - TOOL_NAMES:
            raise InvalidRequest(
                f"approval names unknown members: {', '.join(sorted(unknown))}.",
                hint=f"Known are {', '.join(sorted(TOOL_NAMES))}.",
                details={"approval": f"unknown: {', '.join(sorted(unknown))}"},
            )
        return names
    raise InvalidRequest(
        "approval must be never, risky, always or a list of members.", details={"approval": "not a policy"}
    )


def needs_approval(policy: ApprovalPolicy, tool: str, arguments: Mapping[str, Any]) -> bool:
    """Return whether a person must agree before ``tool`` (a member's or tool's name) runs."""
    if policy == "never" or tool in (ASK_USER, HAND_OVER):
        return False
    if policy == "always":
        return True
    if policy == "risky":
        if tool == EDITOR:
            return arguments.get("command") not in EDITOR_READS
        return tool == SHELL or tool in KEYBOARD or tool in PASTES or tool in BROWSER_ACTS
    return tool in policy


def shown(tool: str, arguments: Mapping[str, Any]) -> str:
    """Return exactly what will run, as one line of ASCII: invisible and look-alike characters are escaped."""
    return f"{tool} {json.dumps(dict(arguments), ensure_ascii=True, default=str)}"


OBSERVE_SECONDS = 10.0


def image_fields(image: Screenshot | None) -> dict[str, Any]:
    """Return an image as the fields of an event."""
    if image is None:
        return {}
    return {"image": image.data, "media_type": image.media_type, "width": image.width, "height": image.height}


async def observe(wanted: Collection[str], desktop: Desktop, call: Call, outcome: Outcome, step: int) -> Unseen:
    """Return what ``wanted`` (screenshot, ax) names and the step's result does not have."""
    began, problem, tree = time.perf_counter(), "", ""
    image: Screenshot | None = None
    of_page = call.toolset == BROWSER
    try:
        async with asyncio.timeout(OBSERVE_SECONDS):
            if "screenshot" in wanted and (of_page or outcome.image is None):
                image = await desktop.screenshot()
            if "ax" in wanted and not of_page and desktop.has_browser:
                tree = (await desktop.browse("observe", {}))["text"]
    except DesktopLost:
        raise
    except (DesktopError, TimeoutError) as error:
        problem = str(error) or type(error).__name__
    took = (time.perf_counter() - began) * 1000
    return Unseen(call.id, step, took, tree, problem, **image_fields(image))
