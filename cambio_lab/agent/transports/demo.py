"""Replies that no service makes: ``model="demo"``, a scripted stand-in, and a client in the place of the model.

Both are HTTP transports under the real SDK, without key and network.

What it does is in :mod:`.script`. What comes next follows from the request alone, so it can be sent again, stopped, and
continued after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import httpx2

from ..tools import COMPUTER
from .script import Reply, next_reply

IMAGE_TOKENS = 1334  # a 1280x800 screenshot
DELTA = 16  # characters of one text delta


class Chunks(httpx2.AsyncByteStream):
    """A response body from an iterator of bytes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk


class DemoTransport(httpx2.AsyncBaseTransport):
    """``pace`` is the pause in seconds between two pieces of text, so that streaming can be seen."""

    def __init__(self, pace: float = 0.004) -> None:
        self._pace = pace

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        if request.method != "POST" or not request.url.path.endswith("/messages"):
            return error_response(request, 404, "not_found_error", "The demo model answers /v1/messages only.")
        try:
            message, reply = await asyncio.to_thread(_answer, body)
        except (ValueError, KeyError, TypeError, AttributeError):
            return error_response(request, 400, "invalid_request_error", "The demo model cannot read this request.")
        headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{message['id'][4:]}"}
        return httpx2.Response(200, headers=headers, stream=Chunks(self._stream(message, reply)), request=request)

    async def _stream(self, message: dict[str, Any], reply: Reply) -> AsyncIterator[bytes]:
        for chunk in message_events(message, reply.blocks, reply.stop_reason):
            yield chunk
            if b"text_delta" in chunk:
                await asyncio.sleep(self._pace)


def _answer(body: bytes) -> tuple[dict[str, Any], Reply]:
    """The next reply and the message's frame. Ids follow from the request: the same question has the same answer."""
    request = json.loads(body)
    digest = hashlib.sha256(body).hexdigest()
    reply = next_reply(request["messages"], frozenset(_tools(request)))
    calls = 0
    for block in reply.blocks:
        if block["type"] == "tool_use":
            block["id"] = f"toolu_demo_{digest[:16]}{calls:02d}"
            calls += 1
    message = {
        "id": f"msg_demo_{digest[:20]}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", "demo"),
        "usage": {"input_tokens": _count(request), "output_tokens": len(json.dumps(reply.blocks)) // 4},
    }
    return message, reply


def _tools(request: dict[str, Any]) -> list[str]:
    """``computer`` for the toolset, else the names of the tools offered."""
    found = []
    for entry in request.get("tools") or ():
        toolset = str(entry.get("type", "")).startswith("computer_toolset_")
        found.append("computer" if toolset else str(entry.get("name", "")))
    return found


def _count(value: Any) -> int:
    """Input tokens, roughly: four characters each, and an image as the model would count it."""
    if isinstance(value, dict):
        if value.get("type") == "image":
            return IMAGE_TOKENS
        return sum(_count(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(_count(inner) for inner in value)
    return len(value) // 4 if isinstance(value, str) else 1


def message_events(
    message: Mapping[str, Any], blocks: Sequence[Mapping[str, Any]], stop_reason: str
) -> Iterator[bytes]:
    """The events of a whole message. ``message`` has everything but ``content``; its usage is reported at both ends."""
    yield event("message_start", message={**message, "content": [], "stop_reason": None, "stop_sequence": None})
    for index, block in enumerate(blocks):
        yield from _block_events(index, block)
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    yield event("message_delta", delta=delta, usage=message["usage"])
    yield event("message_stop")


def _block_events(index: int, block: Mapping[str, Any]) -> Iterator[bytes]:
    if block["type"] == "text":
        yield event("content_block_start", index=index, content_block={"type": "text", "text": ""})
        for start in range(0, len(block["text"]), DELTA):
            delta = {"type": "text_delta", "text": block["text"][start : start + DELTA]}
            yield event("content_block_delta", index=index, delta=delta)
    else:
        yield event("content_block_start", index=index, content_block={**block, "input": {}})
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def event(name: str, **body: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **body}, ensure_ascii=False)}\n\n".encode()


def error_response(request: httpx2.Request, status: int, kind: str, message: str) -> httpx2.Response:
    """Return the service's error envelope; ``x-should-retry: false`` because a transport's answer does not change."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_local"}
    return httpx2.Response(status, json=body, headers={"x-should-retry": "false"}, request=request)


DONE = "Done."


class DirectedTransport(httpx2.AsyncBaseTransport):
    """Answers the first request of a turn with the calls, the next with :data:`DONE`. Costs nothing."""

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []

    def direct(self, calls: Sequence[Mapping[str, Any]], *, toolset: bool) -> None:
        """Set the calls of the next turn, ``{name, input}`` each; ``toolset``: the model knows the newer tool."""
        self._blocks = [_directed(call, toolset) for call in calls]

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        blocks, self._blocks = self._blocks, []
        reason = "tool_use" if blocks else "end_turn"
        usage = {"input_tokens": 0, "output_tokens": 0}
        message = {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": "", "usage": usage}
        events = message_events(message, blocks or [{"type": "text", "text": DONE}], reason)
        headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{uuid.uuid4().hex}"}
        return httpx2.Response(200, headers=headers, stream=Chunks(_streamed(events)), request=request)


def _directed(call: Mapping[str, Any], toolset: bool) -> dict[str, Any]:
    block = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}"}
    if toolset:
        return {**block, "name": call["name"], "input": call["input"], "toolset_name": COMPUTER}
    return {**block, "name": COMPUTER, "input": {**call["input"], "action": call["name"]}}


async def _streamed(events: Iterator[bytes]) -> Any:
    for event in events:
        yield event
