"""Tools that are called by a name of their own: the shell, and functions that a client offers, such as a notebook's."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...desktop.base import Desktop, Screenshot
from ...desktop.machine import CommandResult
from ...errors import ActionError, InvalidRequest
from ...events import QuestionAnswered, QuestionAsked, Timing
from . import ASK_USER, COMPUTER, EDITOR, HAND_OVER, SHELL, Call, Outcome, failed, text_argument

log = logging.getLogger(__name__)
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
RESERVED = frozenset({COMPUTER, SHELL, EDITOR, ASK_USER, HAND_OVER})


class NamedTool:
    """All the time that a call takes is its action's."""

    def __init__(self, *definitions: dict[str, Any]) -> None:
        self.definitions = list(definitions)

    def serves(self, call: Call) -> bool:
        return call.toolset is None and any(entry["name"] == call.name for entry in self.definitions)

    def member(self, call: Call) -> str:
        return call.name

    async def run(self, call: Call) -> Outcome:
        started = time.perf_counter()
        try:
            outcome = await self.carry_out(call)
        except ActionError as error:
            outcome = failed(error.message)
        total = (time.perf_counter() - started) * 1000
        outcome.timing = Timing(action=total, total=total)
        return outcome

    async def carry_out(self, call: Call) -> Outcome:
        """Run one call; an :class:`ActionError` is for the model to read."""
        raise NotImplementedError


class BashTool(NamedTool):
    """``bash_20250124``: the session's one persistent shell, inside the desktop's own environment.

    ``timeout`` is seconds for one command, ``limit`` characters of output that the model sees.
    """

    def __init__(self, desktop: Desktop, *, timeout: float, limit: int) -> None:
        super().__init__({"type": "bash_20250124", "name": SHELL})
        self._desktop = desktop
        self._timeout = timeout
        self._limit = limit

    def time_limit(self, call: Call) -> float:
        return self._timeout + 30.0  # the desktop's own limit comes first, and restarts the shell

    async def carry_out(self, call: Call) -> Outcome:
        command, restart = call.arguments.get("command"), call.arguments.get("restart")
        if restart is True:
            await self._desktop.restart_shell()
            return Outcome(text="The shell was restarted.", changed=True)
        if not isinstance(command, str) or not command.strip():
            return failed("Give a command, or restart: true.")
        result = await self._desktop.run_command(command, self._timeout)
        return Outcome(text=self._words(result), is_error=result.timed_out, changed=True)

    def _words(self, result: CommandResult) -> str:
        parts = []
        if result.stdout:
            parts.append(cut(result.stdout, self._limit))
        if result.stderr:
            parts.append("stderr:\n" + cut(result.stderr, max(self._limit // 4, 1000)))
        if result.truncated:
            parts.append("(The output was longer than what is kept; the middle or end is missing.)")
        if result.timed_out:
            parts.append(
                f"The command ran longer than {self._timeout:g} seconds and was killed; the shell is a new one now."
            )
        elif result.exit_code:
            parts.append(f"(exit code {result.exit_code})")
        if result.shell_ended:
            parts.append("(The command ended the shell; the next command gets a new shell.)")
        return "\n".join(parts) or "(no output)"


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


def cut(text: str, limit: int) -> str:
    """``text`` within ``limit`` characters, the middle left out: the ends of an output matter most."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[len(text) - tail :]}"


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
        if not isinstance(choices, list) or len(choices) > MOST_CHOICES or not all(map(_is_choice, choices)):
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


def _is_choice(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_CHOICE
