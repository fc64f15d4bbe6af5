"""What clients send, checked: how models of ours refuse, and a message's text, metadata and options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from cambio_lab.agent.tools.call import MEMBERS
from cambio_lab.errors import InvalidRequest
from cambio_lab.recording.masking import Mask

NO_SECRETS = Mask()
MAX_CONTENT, MAX_METADATA_BYTES = 200_000, 64_000
MAX_CALLS = 20
"""That one message may make itself."""
MAX_OPTION = 1_000_000_000
"""Of a number among a message's options; more tokens, seconds or dollars mean nothing."""
Option = Annotated[float, Field(ge=0, le=MAX_OPTION)]
WholeOption = Annotated[int, Field(ge=0, le=MAX_OPTION)]


class Checked(BaseModel):
    """A model of ours: unknown keys, NaN and numbers that are text are refused; errors quote no value."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    @classmethod
    def check(cls, values: Mapping[str, Any], where: str) -> Self:
        """Return the model; :class:`InvalidRequest` names every unknown or wrong key, with ``where`` before it."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            wrong: dict[str, object] = {f"{where}.{problem['loc'][0]}": words(problem) for problem in error.errors()}
        hint = f"Known keys: {', '.join(cls.model_fields)}." if "unknown" in wrong.values() else ""
        raise InvalidRequest(f"{where} is not valid: {listed(wrong)}.", hint=hint, details=wrong)


class DirectCall(Checked):
    """One call that a client makes itself."""

    name: Literal[tuple(sorted(MEMBERS))]  # type: ignore[valid-type]
    input: dict[str, Any] = {}


class MessageOptions(Checked):
    """``metadata.options``: what one message changes for its own turn."""

    model: str | None = None
    effort: str | None = None
    thinking: str | None = None
    max_tokens: WholeOption | None = None
    max_steps: WholeOption | None = None
    max_cost_usd: Option | None = None
    max_turn_tokens: WholeOption | None = None
    max_turn_seconds: Option | None = None
    answer_schema: dict[str, Any] | None = None
    calls: list[DirectCall] | None = Field(None, min_length=1, max_length=MAX_CALLS)


def check_content(content: object) -> str:
    """Return a message's text; :class:`InvalidRequest` when it is none, empty or too long."""
    if not isinstance(content, str):
        raise invalid("content", "must be text")
    if not content.strip():
        raise invalid("content", "must not be empty")
    if len(content) > MAX_CONTENT:
        raise invalid("content", f"must have at most {MAX_CONTENT} characters")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in content):
        raise invalid("content", "must be valid Unicode: it has a lone surrogate")
    return content


def check_metadata(metadata: object, mask: Mask = NO_SECRETS) -> dict[str, Any]:
    """Return a message's metadata as it is stored, without values of secrets; ``None`` is none."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise invalid("metadata", "must be an object")
    try:
        size = len(json.dumps(dict(metadata), allow_nan=False).encode())
        masked: dict[str, Any] = mask.json(dict(metadata))
    except (TypeError, ValueError, RecursionError):
        raise invalid("metadata", "must be JSON") from None
    if size > MAX_METADATA_BYTES:
        raise invalid("metadata", f"must have at most {MAX_METADATA_BYTES} bytes")
    return masked


def turn_options(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``metadata.options``: model, effort, thinking, limits and the answer's schema for this turn alone."""
    options = metadata.get("options")
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise invalid("metadata.options", "must be an object")
    found = dict(MessageOptions.check(options, "metadata.options"))
    if found["calls"] is not None:
        found["calls"] = [dict(call) for call in found["calls"]]
    return {name: value for name, value in found.items() if value is not None}


def listed(wrong: Mapping[str, object]) -> str:
    """Return every wrong field with what is wrong with it, in one line."""
    return "; ".join(f"{name.removeprefix('config.')}: {wrong[name]}" for name in sorted(wrong))


_WORDS = {
    "extra_forbidden": "unknown",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "string_too_long": "at most {max_length} characters",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "value_error": "{error}",
}


def words(problem: ErrorDetails) -> str:
    """Return what is wrong in plain words; what pydantic says where we have none."""
    words = _WORDS.get(problem["type"], problem["msg"])
    return words.format(**problem.get("ctx", {})).replace("'", "").replace(" or ", ", ")


def invalid(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {problem}.", details={field: problem})
