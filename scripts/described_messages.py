"""What the server sends on its WebSockets, as :mod:`cambio_lab.api.messages` makes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from described_answers import ABSENT, Answer, Sequence, State, Time
from pydantic import Field


class Heard(Answer):
    """A message of the server."""

    timestamp: Time


class StatusMessage(Heard):
    """Session status updates.

    The first message after connecting is the state of now; its `sequence` is where the reader continues.
    `metadata.event` says what happened: snapshot, user_message, message_queued (a message during a turn; `queued` is
    true), message_delivered, message_withdrawn (with `reason`), control, retry, approval, approval_decided, question
    (with `tool`: ask_user or hand_over, `question`, `choices`, `free_text`, `default`), question_answered,
    human_input, limit, cleared, ended; on /ws also summary, and progress (of the slow first start of a desktop,
    with `fraction` from 0 to 1 or null: the session does not exist yet). After `retry`, the last `dropped_text`
    characters of text pieces are void: the reply that they were part of broke off.
    """

    type: Literal["status"]
    status: State
    content: Annotated[str, Field(description="The state in words.")]
    metadata: dict[str, Any]
    sequence: Sequence = ABSENT
    session_id: Annotated[str, Field(description="On /ws only.")] = ABSENT


class Timing(Answer):
    """Where the time of a call went, in milliseconds."""

    action_ms: float = ABSENT
    settle_ms: float = ABSENT
    encode_ms: float = ABSENT
    total_ms: float = ABSENT


class Box(Answer):
    """An element, in pixels of its page's viewport, which begins at `page_left`, `page_top` of the screen."""

    left: int
    top: int
    right: int
    bottom: int
    page_left: int
    page_top: int


class Result(Answer):
    """What a call gave."""

    image_path: Annotated[str, Field(description="A path on this server that returns the screenshot.")] = ABSENT
    dimensions: Annotated[str, Field(examples=["1280x800"])] = ABSENT
    text: str = ABSENT
    timing: Timing = ABSENT
    box: Annotated[Box, Field(description="The element that a reference named.")] = ABSENT


class CallMetadata(Answer):
    """Whose call it is."""

    toolset: str | None = None
    cost_usd: Annotated[float, Field(description="What the reply cost, with its first call only.")] = ABSENT
    actor: Annotated[Literal["human"], Field(description="A person did it with mouse or keyboard.")] = ABSENT
    denied: Annotated[bool, Field(description="A person denied the call, or did not approve it in time.")] = ABSENT
    ended: Annotated[
        Literal["skipped", "interrupted"], Field(description="It never ran, or was stopped in the middle.")
    ] = ABSENT


class ToolExecution(Heard):
    """Tool execution status."""

    type: Literal["tool_execution"]
    tool: str
    status: Literal["started", "completed", "failed"]
    tool_use_id: str
    step: int
    arguments: dict[str, Any]
    result: Result = ABSENT
    metadata: CallMetadata = ABSENT
    sequence: Sequence


class TurnMetadata(Answer):
    """How a turn went."""

    tool_calls: list[str]
    processing_time: Annotated[float, Field(description="Seconds.")]
    usage: dict[str, Any]
    stopped: bool
    limit: Annotated[str | None, Field(description="The limit that ended the turn.")] = None
    needs_input: bool = ABSENT
    answer: Annotated[
        Any, Field(description="The final text as a value, if the message came with an `answer_schema`.")
    ] = ABSENT
    message_id: str | None = None
    unfinished: Annotated[
        str,
        Field(
            description="Of the text: what no `status` with `metadata.said` told, of a reply that the end broke off."
        ),
    ] = ABSENT


class AgentResponse(Heard):
    """The agent's answer, once at the end of a turn."""

    type: Literal["agent_response"]
    content: str
    metadata: TurnMetadata
    sequence: Sequence


class ErrorMessage(Heard):
    """A turn that failed (with sequence), or a message that was refused (without)."""

    type: Literal["error"]
    error: str
    details: str
    metadata: dict[str, Any] = ABSENT
    sequence: Sequence = ABSENT
    session_id: Annotated[str, Field(description="On /ws only.")] = ABSENT


class Heartbeat(Heard):
    """Connection keep-alive, every 30 s."""

    type: Literal["heartbeat"]


class DeltaMetadata(Answer):
    """What a piece is part of."""

    kind: Literal["text", "thinking", "announce"] = ABSENT
    tool: str = ABSENT
    tool_use_id: str = ABSENT


class AgentDelta(Heard):
    """A piece of text, with ?stream=true."""

    type: Literal["agent_delta"]
    content: Annotated[str, Field(description="The pieces since the last tool call add up to the final text.")]
    metadata: DeltaMetadata
    sequence: Sequence


class Thumbnail(Heard):
    """A small image of a watched session's screen, whenever it has changed."""

    type: Literal["thumbnail"]
    session_id: str
    image: Annotated[str, Field(description="data: URL of a JPEG.")]


class Unfollowed(Heard):
    """A followed session sends no more events, or cannot be followed."""

    type: Literal["unfollowed"]
    session_id: str
    code: Annotated[int, Field(description="As over HTTP: 404 unknown, 409 over, 422 a bad `after`, 503 not now.")]
    reason: str


class ToolsOffered(Heard):
    """Answer to offer_tools."""

    type: Literal["tools_offered"]
    tools: list[str]


class ToolCall(Heard):
    """The agent calls an offered function."""

    type: Literal["tool_call"]
    tool: str
    tool_use_id: str
    arguments: dict[str, Any]
