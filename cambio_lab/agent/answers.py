"""Typed answers: a turn whose final text is JSON that fits the schema that came with the message.

The service's structured outputs know a subset of JSON Schema, so the whole schema is checked here as well; an answer
that does not fit is asked for once more. Models without structured outputs are told the schema in words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import AnswerDoesNotFit, InvalidRequest

MAX_TRIES = 2
DEEPEST = 50
MAX_PROBLEM = 2_000
"""Characters of what is wrong with an answer."""
WORDS = (
    "When you are done, end with the answer alone: one JSON value that fits this JSON schema, no other text around it."
)
AGAIN = (
    "Your answer does not fit the schema: {problem}\nReply with the whole answer again, as JSON that fits the schema."
)


class AnswerSchema:
    """One message's schema. ``tries`` counts the answers that were read."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raise :class:`~cambio_lab.errors.InvalidRequest` for what is no JSON schema."""
        from jsonschema import Draft202012Validator, SchemaError, validators
        from referencing import Registry

        try:
            Draft202012Validator.check_schema(schema)
        except (SchemaError, RecursionError) as error:
            problem = str(error).splitlines()[0][:MAX_PROBLEM]
            raise InvalidRequest(
                f"answer_schema is not a JSON schema: {problem}.", details={"answer_schema": "not a JSON schema"}
            ) from None
        # A client's regular expression could stop the server, and its references could make it fetch addresses.
        safe = validators.extend(Draft202012Validator, {"pattern": _ignore, "patternProperties": _ignore})
        self._validator = safe(schema, registry=Registry())
        self.schema = schema
        self.tries = 0

    @property
    def instruction(self) -> str:
        """The schema in words, for a model that structured outputs do not bind."""
        return f"{WORDS}\n{json.dumps(self.schema, ensure_ascii=False)}"

    def read(self, text: str) -> Any:
        """Return the value in a final text; :class:`~cambio_lab.errors.AnswerDoesNotFit` says what is wrong."""
        self.tries += 1
        try:
            value = json.loads(text.strip().removeprefix("```json").strip("`"))
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # half a surrogate, infinity: not storable
            if _depth(value) > DEEPEST:
                raise ValueError(f"it is nested more than {DEEPEST} levels deep")
            wrong = sorted(self._validator.iter_errors(value), key=lambda found: found.json_path)
        except ValueError as error:
            raise AnswerDoesNotFit(f"it is not JSON ({error})") from None
        except Exception as error:  # a reference that leads nowhere, or around in circles
            raise AnswerDoesNotFit(f"it cannot be checked ({type(error).__name__})") from None
        if wrong:
            problem = "; ".join(f"{found.json_path}: {found.message[:300]}" for found in wrong[:5])
            raise AnswerDoesNotFit(problem[:MAX_PROBLEM])
        return value


def _ignore(*_: Any) -> None:
    """Check nothing; the caller's own model does."""


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
