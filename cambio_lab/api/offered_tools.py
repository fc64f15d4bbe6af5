"""Functions that a client of ``/ws`` offers to the agent: a call goes out over its socket, the result comes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .failure import timestamp

if TYPE_CHECKING:
    from ..agent.tools.extra import ExtraResult
    from ..sessions.session import Session

MOST = 64
LONGEST_SECONDS = 3600.0
LONGEST_DESCRIPTION = 20_000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
GONE = "The notebook or program that offered this function has gone."


class OfferedTools:
    """One socket's offer. The last socket that offers is the one the agent calls."""

    def __init__(self, session: Session, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._session = session
        self._send = send
        self._entries: list[dict[str, Any]] = []
        self._seconds: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[ExtraResult]] = {}

    @property
    def timeout(self) -> float:
        """The longest of the offered functions' limits; each has its own below that."""
        return max(self._seconds.values(), default=60.0)

    def schemas(self) -> Sequence[dict[str, Any]]:
        return self._entries

    async def offer(self, tools: object) -> list[str]:
        """Replace the offer; the names. :class:`InvalidRequest` for what cannot be offered."""
        if not isinstance(tools, list) or len(tools) > MOST:
            raise InvalidRequest(f"tools must be a list of at most {MOST} functions.")
        entries = [_entry(tool) for tool in tools]
        from ..agent.tools.extra import check_names  # loaded by the start hook, off the loop

        check_names(entries)
        self._seconds = {entry["name"]: entry.pop("timeout") for entry in entries}
        self._entries = entries
        if entries:
            self._session.extra_tools = self
        else:
            self.withdraw()
        return [entry["name"] for entry in entries]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        """Ask the client; an answer that does not come in time is a ``TimeoutError``."""
        answer: asyncio.Future[ExtraResult] = asyncio.get_running_loop().create_future()
        self._waiting[tool_use_id] = answer
        try:
            async with asyncio.timeout(self._seconds.get(name, 60.0)):
                await self._send(
                    {
                        "type": "tool_call",
                        "tool": name,
                        "tool_use_id": tool_use_id,
                        "arguments": arguments,
                        "timestamp": timestamp(),
                    }
                )
                return await answer
        finally:
            self._waiting.pop(tool_use_id, None)

    def result(self, body: dict[str, Any]) -> None:
        """A client's answer to a call."""
        text, is_error = body.get("text"), body.get("is_error", False)
        if not isinstance(text, str) or not isinstance(is_error, bool):
            raise InvalidRequest("A tool_result has a text and, if it failed, is_error: true.")
        waiting = self._waiting.get(str(body.get("tool_use_id")))
        if waiting is None or waiting.done():
            raise InvalidRequest("No call waits for this result.", hint="It took too long, or the turn was stopped.")
        self._answer(waiting, text, is_error)

    def withdraw(self) -> None:
        """The client left: what waits for it fails now, and the agent is no longer offered its functions."""
        if self._session.extra_tools is self:
            self._session.extra_tools = None
        for answer in self._waiting.values():
            if not answer.done():
                self._answer(answer, GONE, is_error=True)

    @staticmethod
    def _answer(waiting: asyncio.Future[ExtraResult], text: str, is_error: bool) -> None:
        from ..agent.tools.extra import ExtraResult  # as above

        waiting.set_result(ExtraResult(text, is_error))


def _entry(tool: object) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise InvalidRequest("Each of the tools must be an object.")
    name, description, schema = tool.get("name"), tool.get("description", ""), tool.get("input_schema")
    seconds = tool.get("timeout", 60.0)
    wrong: dict[str, object] = {}
    if not isinstance(name, str) or not _NAME.match(name):
        wrong["name"] = "1 to 64 letters, digits, _ or -"
    if not isinstance(description, str) or len(description) > LONGEST_DESCRIPTION:
        wrong["description"] = f"a text of at most {LONGEST_DESCRIPTION} characters"
    if not isinstance(schema, dict) or schema.get("type") != "object":
        wrong["input_schema"] = 'a JSON schema with "type": "object"'
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_SECONDS:
        wrong["timeout"] = f"seconds, up to {LONGEST_SECONDS:g}"
    if wrong:
        raise InvalidRequest(f"The function {str(name)[:64]!r} cannot be offered.", details=wrong)
    return {"name": name, "description": description, "input_schema": schema, "timeout": float(seconds)}
