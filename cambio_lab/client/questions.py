"""What an agent asks a person, and a program that answers: ``session.on_question(function)``."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CambioError, SessionConflict
from .message import Message
from .portal import UserFunction, calls, portal

if TYPE_CHECKING:
    from .session import Session


@calls
@dataclass(frozen=True)
class Question:
    """A question (``tool`` is ``"ask_user"``), or a request to take over the desktop (``"hand_over"``).

    Without ``free_text`` the answer is one of ``choices``. ``default`` is what the agent goes on with when no answer
    comes until ``expires_at``.
    """

    session: Session
    tool_use_id: str
    tool: str
    question: str
    choices: list[str]
    free_text: bool
    default: str
    expires_at: str

    @classmethod
    def parse(cls, session: Session, metadata: Mapping[str, Any]) -> Question:
        names = ("tool_use_id", "tool", "question", "choices", "free_text", "default", "expires_at")
        return cls(session, *(metadata[name] for name in names))

    async def answer(self, text: str = "") -> None:
        """Answer; empty hands the desktop back. Raises ``SessionConflict`` when it was answered meanwhile."""
        await self.session.answer(text, self.tool_use_id)


Answer = Callable[[Question], Any]
"""Returns the answer as text, or ``None`` to leave it to a person; may be ``async``."""


class Questions:
    """Calls a function of the program for each question, once. Belongs to the portal's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._function: UserFunction | None = None
        self._asked = ""
        self._running: set[asyncio.Task[None]] = set()
        session.channel.asked = self._take

    def answer_with(self, function: Answer) -> None:
        """Call ``function`` from now on."""
        self._function = UserFunction(function)
        portal.submit(self._connect())

    async def _connect(self) -> None:
        with suppress(CambioError):  # the sender of a message is told
            await self._session.channel.connect()
            self._take(self._session.channel.question)

    def _take(self, metadata: Mapping[str, Any] | None) -> None:
        """Answer a question that waits. The same one comes again when the connection does."""
        if metadata is None or self._function is None or metadata.get("tool_use_id") == self._asked:
            return
        self._asked = str(metadata.get("tool_use_id", ""))
        task = asyncio.create_task(self._answer(self._function, Question.parse(self._session, metadata)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, function: UserFunction, question: Question) -> None:
        try:
            text = await function(question)
        except Exception:
            self._session.lab.rest.notice(f"on_question failed; a person may answer.\n{traceback.format_exc(limit=3)}")
            return
        if text is not None:
            with suppress(SessionConflict):  # a person was faster
                await question.answer(str(text))


def waiting(message: Message, before: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the question that waits after ``message``, when ``before`` waited so far."""
    if message.event == "question":
        return message.metadata
    if message.event == "snapshot":
        found = message.metadata.get("question")
        return found if isinstance(found, Mapping) else None
    return None if message.event == "question_answered" or message.ends_turn else before
