"""Functions that a client offers to the agent, such as those of a researcher's notebook."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...errors import InvalidRequest
from ...events import Timing
from ..approval import EDITOR, SHELL
from .bash import cut
from .call import COMPUTER, Call, Outcome, failed

log = logging.getLogger(__name__)
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
RESERVED = frozenset({COMPUTER, SHELL, EDITOR})


@dataclass(frozen=True, slots=True)
class ExtraResult:
    """What a function gave back, as text for the model."""

    text: str
    is_error: bool = False


class ExtraTools(Protocol):
    """Plain functions. ``schemas`` are ``tools[]`` entries: ``name``, ``description``, ``input_schema``."""

    def schemas(self) -> Sequence[dict[str, Any]]: ...

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        """Run one; an exception's text stays here, what may be said to the model is in the result."""

    @property
    def timeout(self) -> float:
        """Seconds one call may take."""


class ExtraTool:
    """Carries calls to an :class:`ExtraTools`; ``limit`` is how many characters of a result the model sees."""

    def __init__(self, tools: ExtraTools, *, limit: int) -> None:
        self._tools = tools
        self._limit = limit
        self._entries = [dict(entry) for entry in tools.schemas()]
        check_names(self._entries)

    def definitions(self) -> list[dict[str, Any]]:
        return self._entries

    def serves(self, call: Call) -> bool:
        return call.toolset is None and any(entry["name"] == call.name for entry in self._entries)

    def member(self, call: Call) -> str:
        return call.name

    def time_limit(self, call: Call) -> float:
        return self._tools.timeout + 5.0

    async def run(self, call: Call) -> Outcome:
        if missing := self._missing(call):
            return failed(f"Not executed: {call.name} needs {', '.join(missing)}.")
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._tools.timeout):
                result = await self._tools.call(call.name, call.arguments, tool_use_id=call.id)
            outcome = Outcome(text=cut(result.text, self._limit), is_error=result.is_error)
        except TimeoutError:
            outcome = failed(f"{call.name} took longer than {self._tools.timeout:g} seconds and was cancelled.")
        except Exception:
            log.exception("the function %s could not be called", call.name)
            outcome = failed(f"{call.name} could not be called.")
        total = (time.perf_counter() - started) * 1000
        outcome.timing = Timing(action=total, total=total)
        return outcome

    def _missing(self, call: Call) -> list[str]:
        """Required arguments that the call does not have."""
        schemas = [entry.get("input_schema") for entry in self._entries if entry["name"] == call.name]
        return [
            str(name) for schema in schemas for name in (schema or {}).get("required", ()) if name not in call.arguments
        ]


def check_names(entries: Sequence[dict[str, Any]]) -> None:
    """Refuse names that are taken or double: the service would answer 400."""
    names = [str(entry.get("name", "")) for entry in entries]
    wrong = sorted({name for name in names if name in RESERVED or not NAME.match(name) or names.count(name) > 1})
    if wrong:
        raise InvalidRequest(
            f"These names cannot be offered as functions: {', '.join(repr(name) for name in wrong)}.",
            hint=f"Use letters, digits, _ and -, each name once, none of {', '.join(sorted(RESERVED))}.",
            details={"tools": "names that are taken, malformed or double"},
        )
