"""What can happen in a session: one small frozen class each.

The agent's loop emits them, ``sessions`` stamps them with a sequence and a time, stores and broadcasts them, and
``api`` translates them to the documented messages.

Times are seconds since the epoch (UTC), durations are milliseconds unless the name says seconds, money is US dollars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, dataclass_transform

from .usage import Box as Box
from .usage import Timing as Timing
from .usage import Usage as Usage
from .usage import timestamp as timestamp

Status = Literal["idle", "thinking", "acting", "waiting_approval", "waiting", "paused", "stopped", "ended", "error"]
"""The values of a ``status`` event; ``waiting``: the agent asked a person something, or gave the desktop away."""


@dataclass_transform(frozen_default=True)
@dataclass(frozen=True)
class Event:
    """Base of all events, which makes a frozen dataclass of each."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


class StatusChanged(Event):
    """The session's state changed; ``content`` says it in words, ``metadata`` has the particulars."""

    status: Status
    content: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class TextDelta(Event):
    """A piece of the agent's visible text. The pieces since the last tool call add up to the final text."""

    text: str


class ThinkingDelta(Event):
    """A piece of the model's thinking summary or progress note."""

    text: str


class ToolAnnounced(Event):
    """The model began to write a call; its arguments are not known yet ("about to click")."""

    tool_use_id: str
    tool: str
    toolset: str | None = None


class RequestSent(Event):
    """A request is about to leave for the model. ``body_sha256`` names its exact bytes."""

    request_index: int
    model: str
    body_sha256: str
    body_bytes: int
    images: int


class HistoryAppended(Event):
    """A message joined the conversation as the model sees it.

    The loop emits it *before* it acts on it: the session stores it first, so a crash between the two finds the
    assistant's calls on disk and closes them as interrupted. ``message`` is a Messages API message (``role``,
    ``content``); image data stays inline.
    """

    message: dict[str, Any]


class HistoryDropped(Event):
    """The last ``count`` messages left the conversation (a refused turn, a compaction)."""

    count: int


class ModelReplied(Event):
    """A whole reply arrived. ``stop_reason`` is the service's."""

    request_index: int
    stop_reason: str
    usage: Usage
    model_ms: float
    text: str = ""
    thinking: str = ""
    """The model's thinking summary, as far as it was sent."""


class ToolStarted(Event):
    """A call begins to run (after any approval)."""

    tool_use_id: str
    tool: str
    toolset: str | None
    arguments: dict[str, Any]
    step: int


class ToolFinished(Event):
    """A call ended, well or badly. ``image`` is the encoded image that the model will see, if any."""

    tool_use_id: str
    tool: str
    toolset: str | None
    arguments: dict[str, Any]
    step: int
    is_error: bool
    text: str
    timing: Timing = Timing()
    image: bytes | None = None
    media_type: str = "image/png"
    width: int = 0
    height: int = 0
    box: Box | None = None
    """The element that a reference named, where the page can say it."""
    actor: Literal["agent", "human"] = "agent"
    """``human``: a person did it with mouse or keyboard; nothing told of its begin."""
    ended: Literal["ran", "skipped", "interrupted"] = "ran"
    """``skipped``: it never began; ``interrupted``: it may have had part of its effect."""


class Unseen(Event):
    """What the model was not shown with a step: the screen (``image``), the accessibility tree of the page (``tree``).

    ``took_ms`` is what looking cost; ``problem`` says why something is missing.
    """

    tool_use_id: str
    step: int
    took_ms: float
    tree: str = ""
    problem: str = ""
    image: bytes | None = None
    media_type: str = "image/png"
    width: int = 0
    height: int = 0


class ApprovalRequested(Event):
    """A call waits for a person. ``shown`` is exactly what will run, invisible characters escaped."""

    tool_use_id: str
    tool: str
    arguments: dict[str, Any]
    shown: str
    expires_at: float


class ApprovalDecided(Event):
    """How a request for approval ended: ``approved``, ``denied``, ``timeout`` or ``stopped``."""

    tool_use_id: str
    verdict: Literal["approved", "denied", "timeout", "stopped"]
    by: str = ""


class QuestionAsked(Event):
    """The agent waits for a person: for an answer (``ask_user``), or until the desktop is handed back (``hand_over``).

    ``question`` is the question or the reason. Without ``free_text`` the answer is one of ``choices``; ``default`` is
    the answer when none comes until ``expires_at``.
    """

    tool_use_id: str
    tool: Literal["ask_user", "hand_over"]
    question: str
    choices: list[str]
    free_text: bool
    default: str
    expires_at: float


class QuestionAnswered(Event):
    """How a question ended. ``answer`` is what the agent is told: the person's words, or the default."""

    tool_use_id: str
    outcome: Literal["answered", "timeout", "stopped"]
    answer: str = ""
    by: str = ""


class Retrying(Event):
    """The model service could not answer; the loop waits ``delay_seconds`` and asks again.

    ``dropped_text`` is how many characters of text pieces, already streamed, belong to a reply that broke off: they
    are void, and the next reply starts over.
    """

    attempt: int
    delay_seconds: float
    retry_at: float
    reason: str
    dropped_text: int = 0


class HumanInput(Event):
    """A person used the desktop. Counts since the last such event, never what was typed."""

    viewer: str
    pointer_events: int = 0
    key_events: int = 0
    clipboard_events: int = 0


class ControlChanged(Event):
    """Who holds the mouse: a viewer's name, or ``None`` for the agent."""

    viewer: str | None


class PolicyChanged(Event):
    """The approval policy changed: ``never``, ``risky``, ``always`` or a list of tool members."""

    approval: str | list[str]


class ConversationCleared(Event):
    """History and the agent's memory of it were cleared."""

    messages: int


class UserMessage(Event):
    """A person's message was accepted and is on disk."""

    message_id: str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)


class MessageQueued(Event):
    """A person's message was accepted during a turn and is on disk; it waits for the agent's next request."""

    message_id: str
    content: str
    metadata: dict[str, Any] = field(default_factory=dict)


class MessageDelivered(Event):
    """A queued message joins the conversation, after the results of the latest calls.

    A ``note`` is no person's message: it tells the agent what a person did on the desktop.
    """

    message_id: str
    content: str
    note: bool = False


class MessageWithdrawn(Event):
    """A queued message will not be delivered: it was taken back, or the turn was ended before."""

    message_id: str
    reason: str


class TurnFinished(Event):
    """The one good end of a turn.

    ``limit`` names a limit that ended it (``max_steps``, ``max_cost_usd``, ``max_tokens``, ``max_seconds``),
    ``needs_input`` is true when the agent asks the user something; ``answer`` is the final text as a value, where the
    message came with a schema. ``text`` repeats what replies told already, but for ``unfinished``: what had come of a
    reply that this end broke off.
    """

    text: str
    tool_calls: list[str]
    processing_time: float
    usage: Usage
    stopped: bool = False
    limit: str | None = None
    needs_input: bool = False
    stop_reason: str = "end_turn"
    answer: Any = None
    unfinished: str = ""


class TurnFailed(Event):
    """The one bad end of a turn. ``error`` is short, ``details`` says what to do; ``fatal`` ends the session.

    ``kind`` is the name of the class of :mod:`cambio_lab.errors` behind it, empty for a mistake of ours.
    """

    error: str
    details: str
    processing_time: float
    usage: Usage
    tool_calls: list[str] = field(default_factory=list)
    fatal: bool = False
    kind: str = ""
