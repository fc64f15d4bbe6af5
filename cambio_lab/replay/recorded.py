"""What surrounded the agent in a recording, given to it again: decisions about calls, and the client's tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..agent.gate import Gate
from ..agent.tools.extra import NAME, RESERVED, ExtraResult
from ..recording.contents import Contents, Json

TIMEOUT = 300.0


class RecordedGate(Gate):
    """Asks for approval exactly where the recording did, whatever the policy was then: it may have changed."""

    def __init__(self, contents: Contents) -> None:
        super().__init__("never", TIMEOUT)
        asked = (event for event in contents.events if event["kind"] == "ApprovalRequested")
        self._asked = frozenset(event["tool_use_id"] for event in asked)

    def needs_approval(self, tool_use_id: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        return tool_use_id in self._asked


class RecordedTools:
    """The functions that a client offered: each call gets its recorded result."""

    timeout = TIMEOUT

    def __init__(self, contents: Contents) -> None:
        self._results: dict[str, Json] = {}
        offered = {str(tool.get("name")) for tool in _offered(contents)}
        for event in contents.events:
            if event["kind"] == "ToolStarted" and event["toolset"] is None:
                offered.add(event["tool"])
            elif event["kind"] == "ToolFinished":
                self._results[event["tool_use_id"]] = event
        self._names = sorted(name for name in offered - RESERVED if NAME.match(name))

    def __bool__(self) -> bool:
        return bool(self._names)

    def schemas(self) -> Sequence[dict[str, Any]]:
        return [{"name": name, "description": "", "input_schema": {"type": "object"}} for name in self._names]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        event = self._results.get(tool_use_id)
        if event is None:
            return ExtraResult(f"The recording has no result of {name}.", is_error=True)
        return ExtraResult(event["text"], event["is_error"])


def _offered(contents: Contents) -> list[Json]:
    """Return the definitions of functions in the first request; the service's own tools have a type."""
    tools = contents.manifest.get("request", {}).get("tools")
    return [tool for tool in tools if isinstance(tool, dict) and "type" not in tool] if isinstance(tools, list) else []
