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
from .script import next_reply

IMAGE_TOKENS = 1334  # a 1280x800 screenshot
NO_USAGE = {"input_tokens": 0, "output_tokens": 0}
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
            asked, blocks = await asyncio.to_thread(_answer, body)
        except (ValueError, KeyError, TypeError, AttributeError):
            return error_response(request, 400, "invalid_request_error", "The demo model cannot read this request.")
        # Ids follow from the request: the same question has the same answer.
        name = f"demo_{hashlib.sha256(body).hexdigest()[:20]}"
        usage = {"input_tokens": _count(asked), "output_tokens": len(json.dumps(blocks)) // 4}
        return message_response(request, name, blocks, model=asked.get("model", "demo"), usage=usage, pace=self._pace)


def _answer(body: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the request and the blocks of the reply."""
    request = json.loads(body)
    return request, next_reply(request["messages"], frozenset(_tools(request)))


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


def message_response(
    request: httpx2.Request,
    name: str,
    blocks: Sequence[Mapping[str, Any]],
    *,
    model: str = "demo",
    usage: Mapping[str, int] = NO_USAGE,
    pace: float = 0.0,
) -> httpx2.Response:
    """Return a whole reply as the service streams it. ``name`` is in its ids; ``usage`` is reported at both ends."""
    whole = [
        {**block, "id": f"toolu_{name}{number:02d}"} if block["type"] == "tool_use" else block
        for number, block in enumerate(blocks)
    ]
    message = {"id": f"msg_{name}", "type": "message", "role": "assistant", "model": model, "usage": usage}
    headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{name}"}
    return httpx2.Response(200, headers=headers, stream=Chunks(_events(message, whole, pace)), request=request)


async def _events(message: dict[str, Any], blocks: list[Mapping[str, Any]], pace: float) -> AsyncIterator[bytes]:
    yield event("message_start", message={**message, "content": [], "stop_reason": None, "stop_sequence": None})
    for index, block in enumerate(blocks):
        for chunk in _block_events(index, block):
            yield chunk
            if pace and b"text_delta" in chunk:
                await asyncio.sleep(pace)
    reason = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
    delta = {"stop_reason": reason, "stop_sequence": None}
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
        return message_response(request, uuid.uuid4().hex[:24], blocks or [{"type": "text", "text": DONE}], model="")


def _directed(call: Mapping[str, Any], toolset: bool) -> dict[str, Any]:
    if toolset:
        return {"type": "tool_use", "name": call["name"], "input": call["input"], "toolset_name": COMPUTER}
    return {"type": "tool_use", "name": COMPUTER, "input": {**call["input"], "action": call["name"]}}
