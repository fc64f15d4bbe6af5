"""The agent's questions to a person, and hand-overs: shown, kept in the history, answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambio_lab.agent.tools.asking import LONGEST_ANSWER
from cambio_lab.agent.tools.call import HAND_OVER
from cambio_lab.errors import InvalidRequest
from cambio_lab.events import Event, QuestionAnswered, QuestionAsked, Status
from cambio_lab.store import new_message_id
from cambio_lab.store.conversation import Role

if TYPE_CHECKING:
    from .control import ControlledSession

WITHOUT_WORDS = {"answered": "Handed back", "timeout": "No answer came in time", "stopped": "The turn was stopped"}


async def asked(session: ControlledSession, event: QuestionAsked, message_id: str) -> None:
    """Tell of a question in the turn on ``message_id``; a hand-over lets viewers act from now on."""
    about = {"question": event.tool, "tool_use_id": event.tool_use_id, "choices": event.choices, "during": message_id}
    await _keep(session, event, "waiting", "assistant", event.question, about)
    session.context.notify(session.name, event.question, event.choices)


async def answered(session: ControlledSession, event: QuestionAnswered, message_id: str) -> None:
    """Tell how a question ended."""
    about = {"answer": event.outcome, "tool_use_id": event.tool_use_id, "by": event.by, "during": message_id}
    await _keep(session, event, "acting", "user", event.answer or WITHOUT_WORDS[event.outcome], about)


async def _keep(
    session: ControlledSession, event: Event, state: Status, role: Role, words: str, about: dict[str, Any]
) -> None:
    session.show(state)
    session.hold()
    message = session.store.messages.appending(new_message_id(), session.id, role, words, about, session.now())
    await session.journal.emit(session.moment(event), operations=[message])


def check_answer(question: QuestionAsked, text: str) -> str:
    """Return ``text`` trimmed; :class:`InvalidRequest` when it is no answer to ``question``."""
    words, problem = text.strip(), ""
    if len(words) > LONGEST_ANSWER:
        problem = f"must have at most {LONGEST_ANSWER} characters"
    elif not words and question.tool != HAND_OVER:
        problem = "must not be empty"
    elif not question.free_text and words not in question.choices:
        problem = f"must be one of {', '.join(question.choices)}"
    if problem:
        raise InvalidRequest(f"The answer {problem}.", details={"text": problem})
    return words
