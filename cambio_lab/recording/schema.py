"""The types and bounds of everything in a run file. A file may come from anyone: what does not fit is refused.

The models of events, steps and options are made from the dataclasses that wrote them, so that a new field is known
here at once. Blocks of the Messages API may have fields that this version does not know; everything else may not.
"""

from __future__ import annotations

import base64
import functools
import sys
import types
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic import model_validator as validator

from .. import events as event_types
from ..agent.options import AgentOptions, TurnOptions
from ..errors import BundleRefused
from ..events import Event, Usage
from ..store import StepRow
from .observations import METHODS

Json = dict[str, Any]
LONGEST_TEXT = 32 * 1024**2
LONGEST_NAME = 2_000
LARGEST_NUMBER = 2**53
LATEST = 253_402_300_799
"""9999-12-31, the last second that a date can be made of."""
LARGEST_SIDE = 20_000
DEEPEST = 64


def _base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Int = Annotated[int, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]
Count = Annotated[int, Field(ge=0, le=LARGEST_NUMBER)]
Step = Annotated[int, Field(ge=0, le=10_000_000)]
Number = Annotated[float, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=LATEST, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MediaType = Literal["image/png", "image/jpeg", "image/webp"]
Side = Annotated[int, Field(ge=0, le=LARGEST_SIDE)]
Encoded = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_base64)]
HeaderText = Annotated[str, Field(pattern=r"^[\t -~]*$", max_length=10_000)]


class Strict(BaseModel):
    """Exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, protected_namespaces=())


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
            if getattr(self, name) is None:
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


class StoredSource(Strict):
    """An image that is a file of the run."""

    type: Literal["cambio_picture"]
    sha256: Digest
    media_type: MediaType


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
    """A request body as the difference to the one before; see :mod:`.bodies`."""

    base: Count | None
    prefix: Count
    suffix: Count
    middle: Text


class Base64Body(Strict):
    base64: Encoded


class Exchange(Strict):
    """One request to the model's service and its reply."""

    number: Count
    started_at: Time = 0.0
    request_sha256: Name
    request: Change
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")], HeaderText]
    response: Text | Base64Body = ""
    first_byte_ms: Milliseconds | None = None
    total_ms: Milliseconds | None = None
    error: Name | None = None


class StoredScreenshot(Strict):
    sha256: Digest
    media_type: MediaType
    width: Side
    height: Side
    encode_ms: Milliseconds = 0.0


class Command(Strict):
    stdout: Text
    stderr: Text
    exit_code: Int | None
    timed_out: bool = False
    truncated: bool = False
    shell_ended: bool = False


class File(Strict):
    path: Text
    size: Int
    modified: Number
    is_dir: bool


Triple = Annotated[list[Any], Field(min_length=3, max_length=3)]


def _settled(value: list[Any]) -> list[Any]:
    TypeAdapter(tuple[Milliseconds, bool, Milliseconds]).validate_python(tuple(value), strict=True)
    return value


def _process(value: list[Any]) -> list[Any]:
    TypeAdapter(tuple[Int, Encoded, Encoded]).validate_python(tuple(value), strict=True)
    return value


class Result(Strict):
    """The result of a call to the desktop: one of these."""

    none: Literal[True] | None = None
    settled: Annotated[Triple, AfterValidator(_settled)] | None = None
    picture: StoredScreenshot | None = None
    point: Annotated[list[Int], Field(min_length=2, max_length=2)] | None = None
    command: Command | None = None
    bytes: Encoded | None = None
    text: Text | None = None
    number: Int | None = None
    process: Annotated[Triple, AfterValidator(_process)] | None = None
    files: Annotated[list[File], Field(max_length=100_000)] | None = None
    browser: dict[Name, Any] | None = None

    @validator(mode="after")
    def check_one(self) -> Result:
        if len(self.model_fields_set) > 1 or any(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("a result has one kind")
        return self


class Failure(Strict):
    type: Name
    message: Text
    hint: Text


class Observation(Strict):
    """A call to the desktop, by the agent or (``by``) a client, with its result or error."""

    step: Step | None = None
    by: Literal["client"] | None = None
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
    display: Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_SIDE)]], Field(min_length=2, max_length=2)] = [
        1280,
        800,
    ]
    image_digest: Name | None = None
    isolated: bool | None = None
    browser: bool | None = None


def model_of(source: type, **overrides: Any) -> type[BaseModel]:
    """Make a strict model with the fields of a dataclass; ``overrides`` are ``(type, default)``, None removes one."""
    hints = get_type_hints(source, {**vars(sys.modules[source.__module__]), "ExtraTools": object})
    made: dict[str, Any] = {}
    for item in fields(source):
        required = item.default is MISSING and item.default_factory is MISSING
        default = item.default if item.default is not MISSING else None
        made[item.name] = (_bounded(item.name, hints[item.name]), ... if required else default)
    made |= overrides
    named: dict[str, Any] = {name: value for name, value in made.items() if value is not None}
    return create_model(source.__name__, __base__=Strict, **named)


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


class Image(Strict):
    sha256: Digest
    media_type: MediaType


class Role(Strict):
    role: Name | None


_EVENT_OVERRIDES: dict[str, dict[str, Any]] = {
    "UserMessage": {"message_id": (Name, "")},
    "HistoryAppended": {"message": (Role, ...)},
    "ToolFinished": {"image": (Image | None, None), "media_type": (MediaType, "image/png")},
    "TurnFailed": {"kind": None, "error_kind": (Name, "")},
}


def _event_models() -> dict[str, type[BaseModel]]:
    found = {}
    for name, kind in vars(event_types).items():
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event:
            stamp: dict[str, Any] = {"time": (Time, ...), "sequence": (Count | None, None)}
            own = {"kind": (Literal[name], ...), **_EVENT_OVERRIDES.get(name, {})}
            if name == "TurnFailed":
                own["kind"] = (Literal[name], ...)
            found[name] = model_of(kind, **stamp, **own)
    return found


EVENTS = _event_models()
Options = model_of(AgentOptions)
TURN_OPTIONS = model_of(TurnOptions, extra_tools=None)
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
    restarts: list[Environment] = []
    model: Name = ""
    config: Json = {}
    desktop: DesktopFacts = DesktopFacts()
    request: Json = {}
    usage: UsageModel | dict[Name, Number] = {}  # type: ignore[valid-type]
    counts: dict[Literal["events", "messages", "steps", "exchanges", "observations"], Count]
    complete: bool = False


ROWS: dict[str, type[BaseModel]] = {
    "messages": Message,
    "steps": STEP,
    "exchanges": Exchange,
    "observations": Observation,
}


ADDED_LATER = frozenset({"thinking"})
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
                row[field] = _asdict(default) if is_dataclass(default) else default


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


def _asdict(value: Any) -> Json:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def check_json(value: Any, where: str) -> None:
    """Refuse nesting below :data:`DEEPEST`, numbers that are not finite or too large, and text that is not Unicode."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEEPEST:
            raise BundleRefused(f"{where} is nested too deeply; the limit is {DEEPEST} levels")
        if isinstance(item, str):
            if not item.isascii():
                _check_text(item, where)
        elif isinstance(item, dict):
            waiting.extend((part, depth + 1) for part in _parts(item))
        elif isinstance(item, list):
            waiting.extend((part, depth + 1) for part in item)
        elif isinstance(item, int | float) and not abs(item) <= 1e300:
            raise BundleRefused(f"{where} has a number that is too large")


def _parts(item: Json) -> Iterable[Any]:
    yield from item
    yield from item.values()


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BundleRefused(f"{where} has text that is not valid Unicode") from None
