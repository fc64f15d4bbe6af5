"""Tools by which the agent turns to a person: a question, and the desktop itself for what only a person may do."""

from __future__ import annotations

import time
from typing import Any

from ...errors import ActionError
from ...events import QuestionAnswered, QuestionAsked
from .call import ASK_USER, HAND_OVER, Call, text_argument
from .named import NamedTool

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
