"""Python types as JSON schemas: what a function is called with, and what a typed answer must be."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from ..errors import AnswerDoesNotFit, InvalidRequest

if typing.TYPE_CHECKING:
    from pydantic import BaseModel

    from .turn import Turn

T = TypeVar("T")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GOOGLE = re.compile(r"^\s*(?:Args|Arguments|Parameters):\s*$", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?::param\s+)?(?:\w+\s+)?(\w+)(?:\s*\([^)]*\))?\s*:\s*(.+)$")


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
        raise InvalidRequest(
            f"{name} has a parameter of a type that JSON cannot carry: {str(error).splitlines()[0]}",
            hint="Use str, int, float, bool, list, dict, Literal, an Enum, a dataclass, or a union of these.",
        ) from None
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


class AnswerType(Generic[T]):
    """One question's type. Raises :class:`~cambio_lab.errors.InvalidRequest` when JSON cannot carry it."""

    def __init__(self, schema: type[T]) -> None:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

        try:
            self._adapter = TypeAdapter(schema)
            self.fields: dict[str, Any] = {"answer_schema": self._adapter.json_schema()}
        except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema) as error:
            raise InvalidRequest(
                f"JSON cannot carry {schema!r}: {str(error).splitlines()[0]}", hint="Use a pydantic model."
            ) from None
        self._found: list[T] = []
        self._problem = ""

    @property
    def again(self) -> str:
        """The message that asks once more."""
        return f"Your answer is not accepted: {self._problem}\nCorrect it and answer again."

    def read(self, turn: Turn) -> bool:
        """Take a turn's answer; false when the type does not accept it."""
        from pydantic import ValidationError

        if turn.stopped or turn.limit:
            raise AnswerDoesNotFit(f"The turn ended before its answer ({turn.outcome}).")
        try:
            self._found = [self._adapter.validate_json(json.dumps(turn.answer))]
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in error.errors()[:5]]
            self._problem = "; ".join(wrong)
        return bool(self._found)

    def value(self) -> T:
        """Return what was accepted; :class:`~cambio_lab.errors.AnswerDoesNotFit` names what was not."""
        if not self._found:
            raise AnswerDoesNotFit(f"The answer was not accepted: {self._problem}.", hint="Its text is in the history.")
        return self._found[0]
