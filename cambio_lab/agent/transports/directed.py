"""A client in the model's place: what it asks for comes as a reply, so that it is approved, recorded and replayed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx2

from ..tools.call import COMPUTER
from .demo import message_events
from .exchanges import Chunks

DONE = "Done."


class DirectedTransport(httpx2.AsyncBaseTransport):
    """Answers the first request of a turn with the calls, the next with :data:`DONE`. Costs nothing."""

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []

    def direct(self, calls: Sequence[Mapping[str, Any]], *, toolset: bool) -> None:
        """Set the calls of the next turn, ``{name, input}`` each; ``toolset``: the model knows the newer tool."""
        self._blocks = [_block(call, toolset) for call in calls]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        blocks, self._blocks = self._blocks, []
        reason = "tool_use" if blocks else "end_turn"
        usage = {"input_tokens": 0, "output_tokens": 0}
        message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": "", "usage": usage}
        events = message_events(message, blocks or [{"type": "text", "text": DONE}], reason)
        headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{uuid.uuid4().hex}"}
        return httpx2.Response(200, headers=headers, stream=Chunks(_async(events)), request=request)


def _block(call: Mapping[str, Any], toolset: bool) -> dict[str, Any]:
    block = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}"}
    if toolset:
        return {**block, "name": call["name"], "input": call["input"], "toolset_name": COMPUTER}
    return {**block, "name": COMPUTER, "input": {**call["input"], "action": call["name"]}}


async def _async(events: Iterator[bytes]) -> Any:
    for event in events:
        yield event
