"""What the server answers, as the handlers make it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ABSENT: Any = Field(default=None)
"""A key that an answer may lack; where it is there, it is not null."""
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, description="UTC, `2024-01-15T10:30:00Z`")]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Sequence = Annotated[int, Field(ge=0, description="Per session and kind of reader, without gaps.")]
State = Literal["idle", "thinking", "acting", "waiting_approval", "waiting", "paused", "stopped", "ended", "error"]
Status = Literal["active", "inactive", "error"]


class Answer(BaseModel):
    """A body that the server sends. Later versions may add keys."""


class Usage(Answer):
    """Tokens by kind, requests and money."""

    input_tokens: int = ABSENT
    output_tokens: int = ABSENT
    cache_creation_input_tokens: int = ABSENT
    cache_read_input_tokens: int = ABSENT
    thinking_tokens: int = ABSENT
    requests: int = ABSENT
    cost_usd: float = ABSENT


class SessionSummary(Answer):
    """A session as lists show it."""

    id: Id
    status: Status
    vnc_url: str = ABSENT
    websocket_url: str = ABSENT
    created_at: Time
    name: str = ABSENT
    state: State = ABSENT
    ended_at: Time | None = None
    end_reason: str | None = None
    model: str = ABSENT
    desktop: str = ABSENT
    steps: int = ABSENT
    usage: Usage = ABSENT
    pinned: bool = ABSENT
    tags: list[str] = ABSENT
    note: str = ABSENT


class Session(SessionSummary):
    """A session, live or ended."""

    vnc_url: str
    websocket_url: str
    container_id: Annotated[str | None, Field(description="null for a local desktop and while none runs")]
    vnc_port: int | None
    approval: Annotated[str | list[str], Field(description="The effective approval policy.")] = ABSENT
    notice: Annotated[str | None, Field(description="What its creator should know: its model retires soon.")] = None
    isolated: bool = ABSENT
    display: str = ABSENT
    image_digest: str | None = None
    config: dict[str, Any] = ABSENT
    control: Annotated[str | None, Field(description="The viewer who has control; null: the agent.")] = None
    sequence: Annotated[int, Field(description="Number of the last event on `/ws`.")] = ABSENT


class Pagination(Answer):
    """Where a page stands in its list."""

    limit: int
    offset: int
    total: int
    has_next: bool
    has_prev: bool


class Page(Answer):
    """A page in both documented forms."""

    total: int
    limit: Annotated[int, Field(le=200)] = ABSENT
    offset: int = ABSENT
    pagination: Pagination


class SessionPage(Page):
    """Sessions, newest first unless `sort` says otherwise."""

    sessions: list[SessionSummary]
    data: Annotated[list[SessionSummary], Field(description="The same list as `sessions`.")]


class Message(Answer):
    """What a person or the agent said."""

    id: str
    role: Literal["user", "assistant"]
    content: str
    timestamp: Time
    metadata: Annotated[
        dict[str, Any],
        Field(
            description="Of an answer: `tool_calls`, `processing_time`, `usage`; `said` lists what the agent said "
            "before it acted, as `step` (of the call that followed) and `content`."
        ),
    ]


class MessagePage(Page):
    """The conversation of a session."""

    messages: list[Message]
    data: Annotated[list[Message], Field(description="The same list as `messages`.")]
    session_id: str


class StepResult(Answer):
    """What a tool call gave."""

    text: str = ABSENT
    image_path: str | None = None
    dimensions: str | None = None
    timing: dict[str, Any] = ABSENT


class Step(Answer):
    """One tool call."""

    step: int
    tool: str
    toolset: str | None = None
    tool_use_id: str = ABSENT
    arguments: dict[str, Any]
    status: Literal["started", "completed", "failed", "denied", "skipped", "interrupted"]
    started_at: Time = ABSENT
    ended_at: Time | None = None
    said: Annotated[
        str, Field(description="What the agent said before this call, where it is the first of a reply.")
    ] = ABSENT
    cost_usd: Annotated[
        float | None, Field(description="What the reply cost whose first call this is, in US dollars.")
    ] = None
    result: StepResult


class StepPage(Page):
    """The tool calls of a session."""

    steps: list[Step]
    data: Annotated[list[Step], Field(description="The same list as `steps`.")]
    session_id: str


class Event(Answer):
    """A message of `/ws/{session_id}`."""

    type: str
    sequence: int
    timestamp: Time


class EventPage(Answer):
    """What happened in a session."""

    events: Annotated[list[Event], Field(description="Up to `limit`, fewer where they are large.")]
    session_id: str
    after: int
    limit: Annotated[int, Field(le=200)]
    last_sequence: Annotated[int, Field(description="The sequence of the session's latest event.")]
    has_next: bool


class Ended(Answer):
    """A session that was ended."""

    message: str
    session_id: str
    ended_at: Time


class Cleared(Answer):
    """A history that was cleared."""

    message: str
    session_id: str
    cleared_messages: int


class Stopped(Answer):
    """A session whose turn was stopped."""

    session_id: str
    state: State


class UploadedImage(Answer):
    """An image as it is stored and shown to the model; a message names it by `sha256`."""

    sha256: str
    media_type: str
    width: int
    height: int


class Ran(Answer):
    """What a program left. Each stream is Base64 and has at most 10 MiB; `truncated` says that one had more."""

    exit_code: Annotated[int | None, Field(description="Null after a time-out; 128 + n for signal n.")]
    stdout: str
    stderr: str
    truncated: bool


class Deleted(Answer):
    """A record that was deleted."""

    message: str
    session_id: str


class Format(Answer):
    """A format of runs."""

    name: str
    ending: str
    summary: str


class Formats(Answer):
    """What a run can be exported as."""

    formats: list[Format]


class Wall(Answer):
    """An experiment of this user; `ended` is empty while it runs."""

    id: str
    name: str
    directory: str
    words: str
    ended: str
    total: int
    done: int
    success: int
    failed: int
    running: int
    more: Annotated[int, Field(description="Desktops that run and are not in `live`.")] = 0


class Walls(Answer):
    """Experiments, newest first."""

    experiments: list[Wall]


class WallCell(Answer):
    """A cell of an experiment."""

    id: str
    task: str
    column: Annotated[str, Field(description="Model, and setting where there are several.")]
    state: Literal["open", "running", "success", "failure", "none"]
    reason: Annotated[str, Field(description="Of the verdict, or what the cell is doing.")]
    run: Annotated[str, Field(description="The name of its run file.")]
    cost_usd: float
    tags: list[str]
    note: Annotated[str, Field(description="What a person noted.")]


class WallDesktop(Answer):
    """A desktop that is at work; `thumbnail` is a JPEG in base64."""

    id: str
    state: str
    steps: int
    cost_usd: float
    thumbnail: str


class WholeWall(Wall):
    """An experiment with its cells."""

    cells: list[WallCell]
    live: list[WallDesktop]


class CellAnnotations(Answer):
    """What people say of a cell."""

    tags: list[str]
    note: str


class Written(Answer):
    """A file that was written."""

    path: str
    size: int


class Models(Answer):
    """The table of models."""

    models: list[dict[str, Any]]
    default: str


class ServiceStates(Answer):
    """The parts that a session needs."""

    database: Literal["up", "down"]
    redis: Literal["up", "down", "disabled"]
    docker: Literal["up", "down", "disabled"]
    desktop: str = ABSENT


class Health(Answer):
    """Whether sessions can be served."""

    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: Time
    services: ServiceStates
    version: str


class Error(Answer):
    """The envelope of every failure."""

    model_config = ConfigDict(extra="forbid")

    error: Annotated[str, Field(description="Kind of failure, as in the table of status codes.")]
    message: Annotated[str, Field(description="For a person: what went wrong and what to do.")]
    details: Annotated[dict[str, Any], Field(description="Field: what is wrong with it.")]
    timestamp: Time
    request_id: Annotated[str, Field(description="Also in the header X-Request-ID and in the server's log.")]
