"""What a program gives the API in Python's types: a session's options, functions as tools, the type of an answer."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, TypeVar

from ..errors import AnswerDoesNotFit, InvalidRequest

if typing.TYPE_CHECKING:
    from pydantic import BaseModel

    from .turn import Turn

T = TypeVar("T")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GOOGLE = re.compile(r"^\s*(?:Args|Arguments|Parameters):\s*$", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?::param\s+)?(?:\w+\s+)?(\w+)(?:\s*\([^)]*\))?\s*:\s*(.+)$")
Method = TypeVar("Method", bound=Callable[..., Any])
FOLDER = "CAMBIO_LAB_RECORDINGS"
"""``cambio-lab replay`` sets it: path and first part of the name of each session's recording, in order."""
MODE = "CAMBIO_LAB_RECORD"
_numbers = itertools.count(1)


class SessionOptions(TypedDict, total=False):
    """What is left out, or ``None``, follows the server's settings."""

    model: str | None
    approval: Literal["never", "risky", "always"] | list[str] | None
    tools: Sequence[str | Callable[..., Any]] | None
    system: str | None
    max_cost_usd: float | None
    max_steps: int | None
    max_messages: int | None
    timeout: float | None
    idle_timeout: float | None
    network: Literal["open", "none"] | dict[str, list[str]] | None
    display: str | None
    desktop: Literal["auto", "docker", "sandbox", "local"] | None
    image: str | None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None
    thinking: Literal["on", "off", "between_tools"] | None
    platform: str | None
    max_tokens: int | None
    max_turn_seconds: float | None
    max_turn_tokens: int | None
    task_budget: int | None
    approval_timeout: float | None
    ask_user: bool | None
    ask_timeout: float | None
    record_human: Literal["actions", "full", "off"] | None
    image_format: Literal["png", "jpeg", "webp"] | None
    observe: list[Literal["screenshot", "ax"]] | None
    secrets: dict[str, str] | list[str] | None
    record: str | Path | None
    record_mode: Literal["once", "none", "all"] | None
    fork: Mapping[str, Any] | None


def spelled_out(method: Method) -> Method:
    """Let ``help()``, completion and checks of arguments see the options of ``method`` as parameters of its own."""
    signature = inspect.signature(method)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
        for name, hint in typing.get_type_hints(SessionOptions).items()
    ]
    vars(method)["__signature__"] = signature.replace(parameters=[*own, *options])
    return method


def bound(config: Mapping[str, Any], *, loopback: bool) -> dict[str, Any]:
    """``config`` with its recording as the server must know it.

    A relative ``record`` is meant from the kernel's folder; a server on this machine is told the whole path. Without
    one, a notebook that is being recorded or replayed gives its sessions one file each, in the order of creation.
    """
    result = dict(config)
    prefix = os.environ.get(FOLDER)
    if not result.get("record") and prefix:
        result["record"] = f"{prefix}-{next(_numbers)}.cambio"
    if result.get("record"):
        path = Path(result["record"])
        result["record"] = str(path.absolute() if loopback else path)
        if os.environ.get(MODE):
            result.setdefault("record_mode", os.environ[MODE])
    return result


@dataclass(frozen=True)
class Description:
    """``name``, ``description``, ``input_schema`` as in a Messages API tool; ``model``, if any, checks arguments."""

    name: str
    description: str
    input_schema: dict[str, Any]
    model: type[BaseModel] | None = None

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``given`` as the function wants it; raise ``TypeError`` in words for the agent."""
        from pydantic import ValidationError

        if self.model is None:  # the other side checks
            return dict(given)
        try:
            checked = self.model.model_validate_json(json.dumps(dict(given)), strict=True)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
            raise TypeError("; ".join(wrong)) from None
        fields = type(checked).model_fields
        return {str(fields[name].alias): getattr(checked, name) for name in checked.model_fields_set}


def describe_function(function: Callable[..., Any], *, name: str = "", description: str = "") -> Description:
    """Return what the agent is told about ``function``.

    Raises :class:`~cambio_lab.errors.InvalidRequest` when a parameter has no type or one that JSON cannot carry, or
    when the function has no docstring and no ``description`` is given.
    """
    from pydantic import ConfigDict, create_model
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

    name = name or function.__name__
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be a tool's name.", hint="Letters, digits, _ and -, at most 64.")
    document = inspect.getdoc(function) or ""
    description = description or _GOOGLE.split(document)[0].partition(":param")[0].strip()
    if not description:
        raise InvalidRequest(f"{name} has no docstring.", hint="The agent needs to know what it does: write one line.")
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **_fields(function, name, document))
        schema = _untitled(model.model_json_schema())
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema) as error:
        text = f"{name} has a parameter of a type that JSON cannot carry: {str(error).splitlines()[0]}"
        hint = "Use str, int, float, bool, list, dict, Literal, an Enum, a dataclass, or a union of these."
        raise InvalidRequest(text, hint=hint) from None
    return Description(name, description, {"type": "object", "properties": {}, "required": [], **schema}, model)


def _fields(function: Callable[..., Any], name: str, document: str) -> dict[str, Any]:
    """Return pydantic fields for the parameters; aliases, because a parameter may have any name."""
    from pydantic import Field

    about = _parameters(document)
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidRequest(f"{name}({parameter}) cannot be offered.", hint="Use named parameters only.")
        if parameter.name not in hints:
            raise InvalidRequest(f"{name}: the parameter {parameter.name} has no type.", hint="Annotate it.")
        hint = hints[parameter.name]
        said = [word for word in typing.get_args(hint)[1:] if isinstance(word, str)]
        text = about.get(parameter.name) or (said[0] if typing.get_origin(hint) is Annotated and said else None)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"field_{number}"] = (hint, Field(default, alias=parameter.name, description=text))
    return fields


def _untitled(schema: Any) -> Any:
    """Return the schema without pydantic's titles, which repeat the names; a property may be called ``title``."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return {key: _untitled(value) for key, value in kept.items()}


def _parameters(document: str) -> dict[str, str]:
    """Return the descriptions in a Google-style ``Args:`` section or in ``:param name:`` lines."""
    section = _GOOGLE.split(document, maxsplit=1)
    lines = section[1].splitlines() if len(section) == 2 else [x for x in document.splitlines() if ":param" in x]
    found: dict[str, str] = {}
    for line in lines:
        if line and not line[0].isspace() and not line.startswith(":param"):
            break  # the next section
        if match := _ITEM.match(line):
            found[match[1]] = match[2].strip()
    return found


async def ask_typed(schema: type[T], content: str, send: Callable[[str, dict[str, Any]], Awaitable[Turn]]) -> T:
    """Return the answer to ``content`` as a ``schema``; ask once more when the type itself does not accept it.

    ``send`` carries a message, with the fields that go along, to its turn's end. Raises
    :class:`~cambio_lab.errors.InvalidRequest` when JSON cannot carry the type, and
    :class:`~cambio_lab.errors.AnswerDoesNotFit`, which names what was not accepted.
    """
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

    try:
        adapter = TypeAdapter(schema)
        fields = {"answer_schema": adapter.json_schema()}
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema) as error:
        text = f"JSON cannot carry {schema!r}: {str(error).splitlines()[0]}"
        raise InvalidRequest(text, hint="Use a pydantic model.") from None
    for _ in range(2):
        turn = await send(content, fields)
        if turn.stopped or turn.limit:
            raise AnswerDoesNotFit(f"The turn ended before its answer ({turn.outcome}).")
        try:
            return adapter.validate_json(json.dumps(turn.answer))
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in error.errors()[:5]]
        content = f"Your answer is not accepted: {'; '.join(wrong)}\nCorrect it and answer again."
    raise AnswerDoesNotFit(f"The answer was not accepted: {'; '.join(wrong)}.", hint="Its text is in the history.")
