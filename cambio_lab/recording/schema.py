"""The types and bounds of everything in a run file. A file may come from anyone: what does not fit is refused.

The models of events, steps and options are made from the dataclasses that wrote them, so that a new field is known
here at once. Blocks of the Messages API may have fields that this version does not know; everything else may not.
"""

from __future__ import annotations

import base64
import functools
import sys
import types
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic import model_validator as validator

from .. import events
from ..agent.options import AgentOptions, TurnOptions
from ..desktop.files import FileInfo
from ..desktop.machine import CommandResult
from ..errors import BundleRefused
from ..store.rows import ExchangeRow, StepRow
from . import Json
from .calls import METHODS

LONGEST_TEXT = 32 * 1024**2
LARGEST_NUMBER = 2**53
LATEST = 253_402_300_799
"""9999-12-31, the last second that a date can be made of."""


def _base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


Name = Annotated[str, Field(max_length=2_000)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Int = Annotated[int, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
Count = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
Step = Annotated[int, Field(ge=0, le=10_000_000)]
Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=LATEST, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MediaType = Literal["image/png", "image/jpeg", "image/webp"]
Side = Annotated[int, Field(ge=0, le=20_000)]
Encoded = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_base64)]


HeaderText = Annotated[str, Field(pattern=r"^[\t -~]*$", max_length=10_000)]


class Strict(BaseModel):
    """Exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, protected_namespaces=())


def model_of(source: type, **overrides: Any) -> type[BaseModel]:
    """Make a strict model with the fields of a dataclass; ``overrides`` are ``(type, default)``, None removes one."""
    hints = get_type_hints(source, {**vars(sys.modules[source.__module__]), "ExtraTools": object})
    made: dict[str, Any] = {}
    for item in fields(source):
        required = item.default is MISSING and item.default_factory is MISSING
        default = item.default if item.default is not MISSING else None
        made[item.name] = (_bounded(item.name, hints[item.name]), ... if required else default)
    made = {name: value for name, value in (made | overrides).items() if value is not None}
    return create_model(source.__name__, __base__=Strict, **made)


_NAMED = {"step": Step, "time": Time, "started_at": Time, "ended_at": Time, "expires_at": Time, "retry_at": Time}


def _bounded(name: str, hint: Any) -> Any:
    """Return ``hint`` with bounds."""
    if get_origin(hint) in (Union, types.UnionType):
        return functools.reduce(lambda one, other: one | other, (_bounded(name, part) for part in get_args(hint)))
    if get_origin(hint) is list:
        return list[_bounded(name, get_args(hint)[0])]  # type: ignore[misc]
    if is_dataclass(hint) and isinstance(hint, type):
        return model_of(hint)
    if name in _NAMED and hint in (int, float):
        return _NAMED[name]
    return {int: Int, float: Number, str: Text}.get(hint, hint)


def check(model: type[BaseModel], value: Json, where: str) -> None:
    """Raise :class:`~cambio_lab.errors.BundleRefused` naming each field that is missing, unknown or wrong."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(str(part)[:60] for part in item['loc'])} is missing or wrong ({item['msg'][:120]})"
            for item in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        ]
        raise BundleRefused(f"{where}: {'; '.join(wrong)}") from None
    except RecursionError:
        raise BundleRefused(f"{where} is nested too deeply") from None


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
    role: Literal["user", "assistant"]
    content: Text | list[Block]


class Change(Strict):
    """A request body as the difference to the one before; see :func:`.placeholders.difference`."""

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
        given = self.model_fields_set & {"result", "error"}
        if len(given) != 1 or (self.result is None) == (self.error is None):
            raise ValueError("a call has a result or an error")
        if self.by is not None and self.result is None:
            raise ValueError("only the agent's calls fail")
        return self


class Role(Strict):
    role: Name | None


_EVENT_OVERRIDES: dict[str, dict[str, Any]] = {
    "UserMessage": {"message_id": (Name, "")},
    "HistoryAppended": {"message": (Role, ...)},
    "ToolFinished": {"image": (Image | None, None), "media_type": (MediaType, "image/png")},
    "Unseen": {"image": (Image | None, None), "media_type": (MediaType, "image/png")},
    "TurnFailed": {"error_kind": (Name, "")},
}


EVENTS = {
    name: model_of(
        kind,
        time=(Time, ...),
        sequence=(Count | None, None),
        kind=(Literal[name], ...),
        **_EVENT_OVERRIDES.get(name, {}),
    )
    for name, kind in vars(events).items()
    if isinstance(kind, type) and issubclass(kind, events.Event) and kind is not events.Event
}
Options = model_of(AgentOptions)
TURN_OPTIONS = model_of(TurnOptions, extra_tools=None, images=None)
STEP = model_of(
    StepRow, session_id=None, timing=(dict[Name, Milliseconds], ...), media_type=(MediaType | None, None),
    sha256=(Digest | None, None), width=(Side, 0), height=(Side, 0),
)  # fmt: skip
UsageModel = model_of(events.Usage)
ROWS = {"messages": Message, "steps": STEP, "exchanges": EXCHANGE, "observations": Observation}
ADDED_LATER = frozenset({"thinking", "actor", "note", "ended", "unfinished"})
"""Fields that the first version-one files lacked; they stay absent, so that a file is written back to the byte."""


def check_row(name: str, row: Json, where: str) -> None:
    """Refuse a row of ``name`` that does not fit; fill in the defaults of fields that an older version did not have."""
    model: Any = EVENTS.get(str(row.get("kind"))) if name == "events" else ROWS[name]
    if model is None:
        raise BundleRefused(f"{where}: kind is missing or unknown: {str(row.get('kind'))[:60]!r}")
    check(model, row, where)
    if name in ("events", "steps"):
        for field, info in model.model_fields.items():
            filled = field not in ADDED_LATER and not info.is_required() and info.default is not None
            if field not in row and filled:
                default = info.default
                row[field] = asdict(default) if is_dataclass(default) and not isinstance(default, type) else default
