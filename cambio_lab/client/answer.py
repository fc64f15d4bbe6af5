"""A typed answer on the caller's side: the type's JSON schema to send, and the value as an instance of the type."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from ..errors import AnswerDoesNotFit, InvalidRequest
from .turn import Turn

T = TypeVar("T")


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
