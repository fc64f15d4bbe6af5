"""From a plain typed Python function to the schema that the model is offered."""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin

from ..errors import InvalidRequest

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GOOGLE = re.compile(r"^\s*(?:Args|Arguments|Parameters):\s*$", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?::param\s+)?(?:\w+\s+)?(\w+)(?:\s*\([^)]*\))?\s*:\s*(.+)$")


@dataclass(frozen=True)
class Description:
    """``name``, ``description`` and ``input_schema`` as a Messages API tool has them."""

    name: str
    description: str
    input_schema: dict[str, Any]
    hints: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """``given`` as the function wants them: enum members, tuples. Raises ``TypeError`` in words for the model."""
        unknown = sorted(set(given) - set(self.input_schema["properties"]))
        missing = [name for name in self.input_schema["required"] if name not in given]
        if unknown or missing:
            raise TypeError(f"arguments unknown: {unknown}, missing: {missing}")
        return {name: _convert(value, self.hints[name], name) for name, value in given.items()}


def describe_function(function: Callable[..., Any], *, name: str = "", description: str = "") -> Description:
    """What the model is told about ``function``.

    Raises :class:`~cambio_lab.errors.InvalidRequest` when a parameter has no type or one that JSON cannot carry, or
    when the function has no docstring and no ``description`` is given.
    """
    name = name or getattr(function, "__name__", "")
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be a tool's name.", hint="Letters, digits, _ and -, at most 64.")
    document = inspect.getdoc(function) or ""
    description = description or _summary(document)
    if not description:
        raise InvalidRequest(f"{name} has no docstring.", hint="The agent needs to know what it does: write one line.")
    about = _parameters(document)
    hints = typing.get_type_hints(function, include_extras=True)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidRequest(f"{name}({parameter}) cannot be offered.", hint="Use named parameters only.")
        if parameter.name not in hints:
            raise InvalidRequest(f"{name}: the parameter {parameter.name} has no type.", hint="Annotate it.")
        entry = _schema(hints[parameter.name], f"{name}: {parameter.name}")
        if parameter.name in about:
            entry.setdefault("description", about[parameter.name])
        properties[parameter.name] = entry
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Description(name, description, schema, hints)


def _schema(hint: Any, where: str) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        words = [word for word in arguments[1:] if isinstance(word, str)]
        return {**_schema(arguments[0], where), **({"description": words[0]} if words else {})}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is Any:
        return {}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(inner, where) for inner in arguments]}
    if origin in (list, set, tuple) or hint in (list, set, tuple):
        inner = [a for a in arguments if a is not Ellipsis]
        return {"type": "array", **({"items": _schema(inner[0], where)} if len(set(inner)) == 1 else {})}
    if origin is dict or hint is dict:
        return {"type": "object", **({"additionalProperties": _schema(arguments[1], where)} if arguments else {})}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [member.value for member in hint]}
    raise InvalidRequest(
        f"{where} has the type {hint!r}, which JSON cannot carry.",
        hint="Use str, int, float, bool, list, dict, Literal, an Enum, or a union of these.",
    )


def _convert(value: Any, hint: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return _convert(value, arguments[0], name)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments, name)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    if origin is Literal:
        if value not in arguments:
            raise TypeError(f"{name} must be one of {list(arguments)}")
        return value
    wanted = origin if isinstance(origin, type) else hint
    if wanted in (set, tuple) and isinstance(value, list):
        return wanted(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = wanted is Any or (isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)))
    if not fits:
        raise TypeError(f"{name} must be {_PLAIN.get(wanted, getattr(wanted, '__name__', wanted))}")
    return value


def _convert_union(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    for choice in choices:
        try:
            return _convert(value, choice, name)
        except (TypeError, ValueError):
            continue
    raise TypeError(f"{name} has the wrong type")


def _summary(document: str) -> str:
    """The docstring up to its list of parameters."""
    text = _GOOGLE.split(document)[0]
    lines = [line for line in text.splitlines() if not line.strip().startswith((":param", ":return"))]
    return "\n".join(lines).strip()


def _parameters(document: str) -> dict[str, str]:
    """Parameter descriptions of a Google-style ``Args:`` section or ``:param name:`` lines."""
    found: dict[str, str] = {}
    section = _GOOGLE.split(document, maxsplit=1)
    lines = section[1].splitlines() if len(section) == 2 else [x for x in document.splitlines() if ":param" in x]
    for line in lines:
        if line and not line[0].isspace() and not line.startswith(":param"):
            break  # the next section
        if match := _ITEM.match(line):
            found[match[1]] = match[2].strip()
    return found
