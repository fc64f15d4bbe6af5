"""The bounds of values in a run file, models made of dataclasses, and the checks that refuse what does not fit."""

from __future__ import annotations

import base64
import functools
import sys
import types
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from ..errors import BundleRefused

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
