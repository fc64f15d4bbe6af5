"""A reply as the service streams it: server-sent events of one message."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import httpx2

PIECE = 16  # characters of one text delta


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
        for start in range(0, len(block["text"]), PIECE):
            delta = {"type": "text_delta", "text": block["text"][start : start + PIECE]}
            yield event("content_block_delta", index=index, delta=delta)
    else:
        yield event("content_block_start", index=index, content_block={**block, "input": {}})
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield event("content_block_delta", index=index, delta=delta)
    yield event("content_block_stop", index=index)


def event(name: str, **body: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **body}, ensure_ascii=False)}\n\n".encode()


class Chunks(httpx2.AsyncByteStream):
    """A response body from an iterator of bytes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk


def error_response(request: httpx2.Request, status: int, kind: str, message: str) -> httpx2.Response:
    """The service's error envelope; ``x-should-retry: false`` because a transport's answer does not change."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_local"}
    return httpx2.Response(status, json=body, headers={"x-should-retry": "false"}, request=request)
