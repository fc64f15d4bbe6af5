"""Tools beside computer, shell and editor: functions of a client, questions to people, the browser toolset.

The toolset ``browser_toolset_20260801`` works on the Chromium of the session's desktop: the SDK's class parses the
input, keeps the browser's state and renders the results; what a member does is :mod:`cambio_lab.desktop.browser`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..desktop.base import Desktop, Region, Screenshot
from ..errors import ActionError, DesktopError, DesktopLost, InvalidRequest
from ..events import Box, QuestionAnswered, QuestionAsked, Timing
from .client import ToolsetParts
from .computer import ToolsetTool
from .options import OPTIONAL_MEMBERS
from .shell import NamedTool, cut
from .tools import ASK_USER, BROWSER, COMPUTER, EDITOR, HAND_OVER, SHELL, Call, Outcome, failed, refusing, text_argument

log = logging.getLogger(__name__)
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
RESERVED = frozenset({COMPUTER, SHELL, EDITOR, ASK_USER, HAND_OVER})


@dataclass(frozen=True, slots=True)
class ExtraResult:
    """What a function gave back: text for the model, and at most one image of a size that it takes."""

    text: str
    is_error: bool = False
    image: Screenshot | None = None


class ExtraTools(Protocol):
    """Plain functions. ``schemas`` are ``tools[]`` entries: ``name``, ``description``, ``input_schema``."""

    def schemas(self) -> Sequence[dict[str, Any]]: ...

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        """Run one; an exception's text stays here, what may be said to the model is in the result."""

    @property
    def timeout(self) -> float:
        """Seconds one call may take."""


class ExtraTool(NamedTool):
    """Carries calls to an :class:`ExtraTools`; ``limit`` is how many characters of a result the model sees."""

    def __init__(self, tools: ExtraTools, *, limit: int) -> None:
        super().__init__(*map(dict, tools.schemas()))
        self._tools = tools
        self._limit = limit
        check_names(self.definitions)

    def time_limit(self, call: Call) -> float:
        return self._tools.timeout + 5.0

    async def carry_out(self, call: Call) -> Outcome:
        schema = next(entry for entry in self.definitions if entry["name"] == call.name).get("input_schema") or {}
        if missing := [str(name) for name in schema.get("required", ()) if name not in call.arguments]:
            return failed(f"Not executed: {call.name} needs {', '.join(missing)}.")
        try:
            async with asyncio.timeout(self._tools.timeout):
                result = await self._tools.call(call.name, call.arguments, tool_use_id=call.id)
        except TimeoutError:
            return failed(f"{call.name} took longer than {self._tools.timeout:g} seconds and was cancelled.")
        except Exception:
            log.exception("the function %s could not be called", call.name)
            return failed(f"{call.name} could not be called.")
        return Outcome(text=cut(result.text, self._limit), is_error=result.is_error, image=result.image)


def check_names(entries: Sequence[dict[str, Any]]) -> None:
    """Refuse names that are taken or double: the service would answer 400."""
    names = [str(entry.get("name", "")) for entry in entries]
    wrong = sorted({name for name in names if name in RESERVED or not NAME.match(name) or names.count(name) > 1})
    if wrong:
        raise InvalidRequest(
            f"These names cannot be offered as functions: {', '.join(repr(name) for name in wrong)}.",
            hint=f"Use letters, digits, _ and -, each name once, none of {', '.join(sorted(RESERVED))}.",
            details={"tools": "names that are taken, malformed or double"},
        )


MOST_CHOICES, LONGEST_CHOICE, LONGEST_QUESTION = 20, 200, 4_000
LONGEST_ANSWER = 20_000
DEFINITIONS: tuple[dict[str, Any], ...] = (
    {
        "name": ASK_USER,
        "description": (
            "Ask the user a question and wait for the answer. Use it when you cannot go on without a decision or "
            "information that only the user has; do not use it for what you can find out yourself."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "question": {"type": "string", "description": "One question, understandable without the screen."},
                "choices": {"type": "array", "items": {"type": "string"}, "description": "Answers to choose from."},
                "free_text": {
                    "type": "boolean",
                    "description": "Whether another answer than the choices is possible. Default: true.",
                },
                "default": {"type": "string", "description": "What you go on with when no answer comes in time."},
            },
            "required": ["question"],
        },
    },
    {
        "name": HAND_OVER,
        "description": (
            "Give mouse and keyboard to the user and wait until they are handed back. Use it for what only the user "
            "may do: log in, solve a captcha, confirm a payment. You see the screen afterwards."
        ),
        "input_schema": {
            "type": "object",
            "properties": {"reason": {"type": "string", "description": "What the user shall do, in one sentence."}},
            "required": ["reason"],
        },
    },
)


class AskTool(NamedTool):
    """``ask_user`` and ``hand_over``. The loop asks (:class:`..calls.Calls`), because a question is also an event."""

    def __init__(self, seconds: float) -> None:
        super().__init__(*DEFINITIONS)
        self._seconds = seconds

    def time_limit(self, call: Call) -> float:
        return self._seconds + 30.0

    def question(self, call: Call) -> QuestionAsked:
        """Return what is asked; :class:`ActionError` says to the model what is wrong with the call."""
        asks = call.name == ASK_USER
        given, words = call.arguments, text_argument(call.arguments, "question" if asks else "reason").strip()
        if not words or len(words) > LONGEST_QUESTION:
            raise ActionError(f"Give a {'question' if asks else 'reason'} of 1 to {LONGEST_QUESTION} characters.")
        choices, free_text = given.get("choices") or [], given.get("free_text", True) is not False
        if (
            not isinstance(choices, list)
            or len(choices) > MOST_CHOICES
            or not all(isinstance(choice, str) and 0 < len(choice.strip()) <= LONGEST_CHOICE for choice in choices)
        ):
            raise ActionError(f"choices: at most {MOST_CHOICES} texts of 1 to {LONGEST_CHOICE} characters.")
        default = text_argument(given, "default")[:LONGEST_ANSWER]
        return QuestionAsked(
            call.id,
            "ask_user" if asks else "hand_over",
            words,
            list(choices) if asks else [],
            not asks or free_text or not choices,
            default if asks else "",
            time.time() + self._seconds,
        )

    def words(self, question: QuestionAsked, answer: QuestionAnswered) -> str:
        """Return what the model reads."""
        if answer.outcome == "timeout":
            if question.tool == HAND_OVER:
                return "The user did not hand the desktop back in time; you have it again. Look before you go on."
            if answer.answer:
                return f"The user did not answer in time. Go on with the default: {answer.answer}"
            return "The user did not answer in time. Decide yourself, or end your turn and say what you need."
        if question.tool == ASK_USER:
            return f"The user answered: {answer.answer}"
        said = f" and says: {answer.answer}" if answer.answer else "."
        return f"The user handed the desktop back{said}"


LONG = {"navigate": 60.0, "wait": 45.0, "hold_key": 45.0, "javascript_exec": 45.0}
_SECONDS = 60.0
TABS = frozenset({"new_tab", "list_tabs", "switch_tab"})


class BrowserTool(ToolsetTool):
    """Carries out member calls on the desktop's browser."""

    def __init__(
        self, desktop: Desktop, admitted: Callable[[str], bool], parts: ToolsetParts, members: frozenset[str]
    ) -> None:
        tool = self

        class Toolset(parts.browser.BetaAsyncAbstractBrowserToolset20260801):  # type: ignore[misc, name-defined]
            async def _browser_state(self, context: Any) -> Any:
                return await tool.state()

        configs = {name: {"enabled": True} for name in sorted(members & frozenset(OPTIONAL_MEMBERS))}
        super().__init__(Toolset, admitted, parts, configs=configs or None, file_policy=_Files())
        self._desktop = desktop
        self._results = parts.browser
        self._image: Screenshot | None = None
        self._box: Box | None = None
        self._pages: dict[str, str] = {}
        """Address of each tab, as last reported; the active one also under the empty name."""

    def serves(self, call: Call) -> bool:
        return call.toolset == BROWSER

    def time_limit(self, call: Call) -> float:
        return LONG.get(call.name, _SECONDS)

    def address(self, call: Call) -> str:
        """Return the address of the page that a call is for, as last reported; empty before the first report."""
        return self._pages.get(str(call.arguments.get("tab_id") or ""), "")

    async def run(self, call: Call) -> Outcome:
        self._image = self._box = None
        blocks, is_error, total = await self.result(call)
        lines = [block["text"] for block in blocks if block["type"] == "text"]
        if is_error:
            return failed("\n".join(lines))
        image = self._image
        return Outcome(
            text="\n".join(lines),
            image=image,
            timing=Timing(encode=image.encode_ms if image else 0.0, total=total),
            lines=lines,
            box=self._box,
            state=next((block for block in blocks if block["type"] == "browser_state"), None),
        )

    async def perform(self, name: str, arguments: dict[str, Any]) -> Any:
        with refusing(name, "browser", self._parts.error, self.note_loss):
            if name in ("screenshot", "zoom"):
                return await self._capture(arguments)
            answer = await self._desktop.browse(name, arguments)
        self._box = _box(answer.get("box"))
        if name == "navigate":
            return self._results.BetaBrowserNavigateResult(**answer)
        if name in TABS:
            return answer["tabs"] if name == "list_tabs" else answer
        return answer.get("text") or None if name not in _READS else answer["text"]

    async def _capture(self, arguments: Mapping[str, Any]) -> Any:
        region = arguments.get("region")
        if region is not None and len(region) != 4:
            raise ActionError("region is [x0, y0, x1, y1].")
        corners = None if region is None else Region(*region)
        self._image = await self._desktop.browser_screenshot(arguments.get("tab_id"), corners)
        # The SDK only needs to see that there is one: the block is made from the screenshot itself, once.
        return self._parts.computer.BetaScreenshotResult(data="", media_type=self._image.media_type)

    async def state(self) -> Any:
        """Return the browser's state in the SDK's form; nothing is open when it cannot be asked."""
        found: dict[str, Any] = {"tabs": [], "state_changes": []}
        try:
            found = await self._desktop.browse("state", {})
        except DesktopLost as error:
            self.note_loss(error)
        except DesktopError:
            pass
        self._pages = {tab["tab_id"]: tab["url"] for tab in found["tabs"]}
        self._pages[""] = next((tab["url"] for tab in found["tabs"] if tab.get("active")), "")
        changes = [self._change(change) for change in found["state_changes"]]
        return self._results.BetaBrowserState(tabs=found["tabs"], state_changes=changes)

    def _change(self, change: dict[str, Any]) -> Any:
        if change["type"] == "dialog_dismissed":
            return self._results.BetaDialogDismissed(kind=change["kind"], message=change["message"])
        return self._results.BetaNavigationRefused() if change["type"] == "navigation_refused" else change


_READS = frozenset({"read_page", "get_page_text", "find", "read_console", "read_network", "javascript_exec"})


def _box(found: object) -> Box | None:
    """Return what the desktop, or a run file, says of an element's place; ``None`` where that is no place."""
    if isinstance(found, list) and len(found) == 6 and all(isinstance(n, int) and abs(n) <= 100_000 for n in found):
        return Box(*found)
    return None


class _Files:
    """Which files of the desktop a page may be given: the desktop itself checks that they lie in its home."""

    def resolve_upload_paths(self, context: Any, paths: Any) -> list[str]:
        return list(paths)

    def resolve_upload_documents(self, context: Any, document_ids: Any) -> list[str]:
        return []

    def is_path_visible(self, path: str) -> bool:
        return True  # shell and editor read the same files
