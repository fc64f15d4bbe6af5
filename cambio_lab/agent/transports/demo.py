"""``model="demo"``: a scripted stand-in for the model, as an HTTP transport under the real SDK. No key, no network.

It makes a short tour of the real desktop: it looks, opens a terminal, types what the user wrote into it (as a shell
comment, so nothing of it can run), looks again and reports. Every reply says that it is the demo model. What comes
next is read off the request alone, so it can be asked again, stopped, and continued after a restart.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from . import tour
from .sse import Chunks, error_response, message_events

PICTURE_TOKENS = 1334  # a 1280x800 screenshot


class DemoTransport(httpx2.AsyncBaseTransport):
    """``pace`` is the pause in seconds between two pieces of text, so that streaming can be seen."""

    def __init__(self, pace: float = 0.004) -> None:
        self._pace = pace

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        if request.method != "POST" or not request.url.path.endswith("/messages"):
            return error_response(request, 404, "not_found_error", "The demo model answers /v1/messages only.")
        try:
            answer = await asyncio.to_thread(_answer, body)
        except (ValueError, KeyError, TypeError, AttributeError):
            return error_response(request, 400, "invalid_request_error", "The demo model cannot read this request.")
        message, reply = answer
        headers = {"content-type": "text/event-stream; charset=utf-8", "request-id": f"req_{message['id'][4:]}"}
        return httpx2.Response(200, headers=headers, stream=Chunks(self._stream(message, reply)), request=request)

    async def _stream(self, message: dict[str, Any], reply: tour.Reply) -> AsyncIterator[bytes]:
        for chunk in message_events(message, reply.blocks, reply.stop_reason):
            yield chunk
            if b"text_delta" in chunk:
                await asyncio.sleep(self._pace)


def _answer(body: bytes) -> tuple[dict[str, Any], tour.Reply]:
    """The next reply and the message's frame. Ids follow from the request: the same question has the same answer."""
    request = json.loads(body)
    digest = hashlib.sha256(body).hexdigest()
    reply = tour.next_reply(request["messages"], frozenset(_tools(request)))
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
    """Input tokens, roughly: four characters each, and a picture as the model would count it."""
    if isinstance(value, dict):
        if value.get("type") == "image":
            return PICTURE_TOKENS
        return sum(_count(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(_count(inner) for inner in value)
    return len(value) // 4 if isinstance(value, str) else 1
