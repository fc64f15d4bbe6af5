"""The types and bounds of everything in a run file. A file may come from anyone: what does not fit is refused.

The models of events, steps and options are made from the dataclasses that wrote them, so that a new field is known
here at once. Blocks of the Messages API may have fields that this version does not know; everything else may not.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic import model_validator as validator

from .. import events as event_types
from ..agent.options import AgentOptions, TurnOptions
from ..desktop.files import FileInfo
from ..desktop.machine import CommandResult
from ..errors import BundleRefused
from ..events import Event, Usage
from ..store import ExchangeRow, StepRow
from . import LISTS
from .bounds import (
    Count,
    Digest,
    Encoded,
    HeaderText,
    Int,
    Json,
    MediaType,
    Milliseconds,
    Name,
    Number,
    Side,
    Step,
    Strict,
    Text,
    Time,
    check,
    model_of,
)
from .calls import METHODS


class Block(Strict):
    """A block of the Messages API. The service adds fields; those that this package reads are typed."""

    model_config = ConfigDict(extra="allow")
    type: Name
    text: Text | None = None
    id: Name | None = None
    name: Name | None = None
    input: Json | None = None
    tool_use_id: Name | None = None
    toolset_name: Name | None = None
    is_error: bool | None = None
    thinking: Text | None = None
    signature: Text | None = None
    source: Json | None = None
    content: str | list[Block] | Json | None = None

    @validator(mode="after")
    def check_required(self) -> Block:
        for name in _REQUIRED.get(self.type, ()):
            if dict(self)[name] is None:
                raise ValueError(f"a {self.type} block lacks {name}")
        if self.type == "image" and self.source is not None:
            SOURCE.validate_python(self.source, strict=True)
        if self.type == "tool_result" and isinstance(self.content, dict):
            raise ValueError("the content of a tool_result is an object")
        return self


_REQUIRED = {
    "text": ("text",),
    "image": ("source",),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking",),
}


class Image(Strict):
    sha256: Digest
    media_type: MediaType


class StoredSource(Image):
    """An image that is a file of the run."""

    type: Literal["cambio_picture"]


class InlineSource(Strict):
    """An image within the message."""

    type: Literal["base64"]
    media_type: Annotated[str, Field(pattern=r"^image/[a-z]+$")]
    data: Encoded


SOURCE: TypeAdapter[StoredSource | InlineSource] = TypeAdapter(StoredSource | InlineSource)


class Message(Strict):
    """One message of the conversation."""

    role: Literal["user", "assistant"]
    content: Text | list[Block]


class Change(Strict):
    """A request body as the difference to the one before; see :func:`..recording.difference`."""

    base: Count | None
    prefix: Count
    suffix: Count
    middle: Text


class Base64Body(Strict):
    base64: Encoded


EXCHANGE = model_of(
    ExchangeRow, session_id=None, number=(Count, ...), started_at=(Time, 0.0), request_sha256=(Name, ...),
    request=(Change, ...), status=(Annotated[int, Field(ge=100, le=599)] | None, None),
    headers=(dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")], HeaderText], ...),
    response=(Text | Base64Body, ""), first_byte_ms=(Milliseconds | None, None),
    total_ms=(Milliseconds | None, None), error=(Name | None, None),
)  # fmt: skip
"""One request to the model's service and its reply."""


class StoredScreenshot(Image):
    width: Side
    height: Side
    encode_ms: Milliseconds = 0.0


Command, File = model_of(CommandResult), model_of(FileInfo)


class Result(Strict):
    """The result of a call to the desktop: one of these."""

    none: Literal[True] | None = None
    settled: Annotated[tuple[Milliseconds, bool, Milliseconds], Field(strict=False)] | None = None
    picture: StoredScreenshot | None = None
    point: Annotated[list[Int], Field(min_length=2, max_length=2)] | None = None
    command: Command | None = None  # type: ignore[valid-type]
    bytes: Encoded | None = None
    text: Text | None = None
    number: Int | None = None
    process: Annotated[tuple[Int, Encoded, Encoded], Field(strict=False)] | None = None
    files: Annotated[list[File], Field(max_length=100_000)] | None = None  # type: ignore[valid-type]
    browser: dict[Name, Any] | None = None

    @validator(mode="after")
    def check_one(self) -> Result:
        if len(self.model_fields_set) > 1 or any(dict(self)[name] is None for name in self.model_fields_set):
            raise ValueError("a result has one kind")
        return self


class Failure(Strict):
    type: Name
    message: Text
    hint: Text


class Observation(Strict):
    """A call to the desktop, by the agent or (``by``) a client, with its result or error."""

    step: Step | None = None
    by: Literal["client", "human"] | None = None
    method: Literal[tuple(sorted(METHODS))]  # type: ignore[valid-type]
    arguments: dict[Name, Any]
    at: Time
    ms: Milliseconds
    result: Result | None = None
    error: Failure | None = None

    @validator(mode="after")
    def check_outcome(self) -> Observation:
        if (self.result is None) == (self.error is None):
            raise ValueError("a call has a result or an error")
        return self


class SessionFacts(Strict):
    id: Name
    name: Name
    status: Name = ""
    created_at: Time | None = None
    ended_at: Time | None = None
    end_reason: Name | None = None


class DesktopFacts(Strict):
    kind: Name | None = None
    display: Annotated[list[Annotated[Side, Field(ge=1)]], Field(min_length=2, max_length=2)] = Field(
        default=[1280, 800]
    )
    image_digest: Name | None = None
    isolated: bool | None = None
    browser: bool | None = None


class Role(Strict):
    role: Name | None


_EVENT_OVERRIDES: dict[str, dict[str, Any]] = {
    "UserMessage": {"message_id": (Name, "")},
    "HistoryAppended": {"message": (Role, ...)},
    "ToolFinished": {"image": (Image | None, None), "media_type": (MediaType, "image/png")},
    "Unseen": {"image": (Image | None, None), "media_type": (MediaType, "image/png")},
    "TurnFailed": {"error_kind": (Name, "")},
}


def _event_models() -> dict[str, type[BaseModel]]:
    found = {}
    for name, kind in vars(event_types).items():
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event:
            stamp: dict[str, Any] = {"time": (Time, ...), "sequence": (Count | None, None)}
            own = {**_EVENT_OVERRIDES.get(name, {}), "kind": (Literal[name], ...)}
            found[name] = model_of(kind, **stamp, **own)
    return found


EVENTS = _event_models()
Options = model_of(AgentOptions)
TURN_OPTIONS = model_of(TurnOptions, extra_tools=None, images=None)
STEP = model_of(
    StepRow, session_id=None, timing=(dict[Name, Milliseconds], ...), media_type=(MediaType | None, None),
    sha256=(Digest | None, None), width=(Side, 0), height=(Side, 0),
)  # fmt: skip
UsageModel = model_of(Usage)


class Environment(Strict):
    """What a recording was made with."""

    cambio_lab: Name = ""
    anthropic: Name = ""
    options: Options | None = None  # type: ignore[valid-type]
    approval: Name | Annotated[list[Name], Field(max_length=100)] | None = None
    desktop: DesktopFacts | None = None
    image: Name | None = None
    experiment: Json | None = None


class Manifest(Strict):
    """The facts about a whole run."""

    format: Literal["cambio-run"]
    version: Literal[1]
    session: SessionFacts
    environment: Environment = Environment()
    restarts: list[Environment] = Field(default=[])
    model: Name = ""
    config: Json = Field(default={})
    desktop: DesktopFacts = DesktopFacts()
    request: Json = Field(default={})
    usage: UsageModel | dict[Name, Number] = Field(default={})  # type: ignore[valid-type]
    counts: dict[Literal[LISTS], Count]  # type: ignore[valid-type]
    complete: bool = False


ROWS: dict[str, type[BaseModel]] = {
    "messages": Message,
    "steps": STEP,
    "exchanges": EXCHANGE,
    "observations": Observation,
}


ADDED_LATER = frozenset({"thinking", "actor", "note", "ended", "unfinished"})
"""Fields that the first version-one files lacked; they stay absent, so that a file is written back to the byte."""


def check_row(name: str, row: Json, where: str) -> None:
    """Refuse a row of ``name`` that does not fit; fill in the defaults of fields that an older version did not have."""
    model = EVENTS.get(str(row.get("kind"))) if name == "events" else ROWS[name]
    if model is None:
        raise BundleRefused(f"{where}: kind is missing or unknown: {str(row.get('kind'))[:60]!r}")
    check(model, row, where)
    if name in ("events", "steps"):
        for field, info in model.model_fields.items():
            filled = field not in ADDED_LATER and not info.is_required() and info.default is not None
            if field not in row and filled:
                default = info.default
                row[field] = asdict(default) if is_dataclass(default) and not isinstance(default, type) else default
