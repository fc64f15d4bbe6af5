"""A model that says what a test wrote down, as a transport under the real SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2

Block = dict[str, Any]
USAGE = {"input_tokens": 100, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 300, "output_tokens": 1}


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def thinking(words: str = "Hm.", signature: str = "sig") -> Block:
    return {"type": "thinking", "thinking": words, "signature": signature}


def use(name: str, id: str = "", /, **arguments: Any) -> Block:
    """A member call of the computer toolset."""
    return {**tool(name, id, **arguments), "toolset_name": "computer"}


def tool(name: str, id: str = "", /, **arguments: Any) -> Block:
    """A call of a plain tool."""
    return {"type": "tool_use", "id": id or f"toolu_{next(_counter)}", "name": name, "input": arguments}


def _count() -> Any:
    number = 0
    while True:
        number += 1
        yield f"{number:04}"


_counter = _count()


def events(blocks: Sequence[Block], stop_reason: str | None = None, **message: Any) -> list[tuple[str, dict[str, Any]]]:
    """The server-sent events of a reply."""
    if stop_reason is None:
        stop_reason = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
    start: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": USAGE,
    }
    found: list[tuple[str, dict[str, Any]]] = [("message_start", {"message": start})]
    for index, block in enumerate(blocks):
        opened, deltas = _parts(block)
        found.append(("content_block_start", {"index": index, "content_block": opened}))
        found += [("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
        found.append(("content_block_stop", {"index": index}))
    delta = {"stop_reason": stop_reason, "stop_sequence": None, **message.pop("delta", {})}
    usage = {"output_tokens": 50, **message.pop("usage", {})}
    found.append(("message_delta", {"delta": delta, "usage": usage}))
    found.append(("message_stop", {}))
    return found


def _parts(block: Block) -> tuple[Block, list[Block]]:
    kind = block["type"]
    if kind == "text":
        pieces = [block["text"][at : at + 8] for at in range(0, len(block["text"]), 8)]
        return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        return {"type": "thinking", "thinking": "", "signature": ""}, [
            *deltas,
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    if kind == "tool_use":
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
    if kind == "compaction":
        delta = {"type": "compaction_delta", "content": block["content"], "encrypted_content": None}
        return {"type": "compaction", "content": None}, [delta]
    return block, []


def encode(found: Sequence[tuple[str, dict[str, Any]]]) -> bytes:
    return b"".join(f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode() for name, data in found)


def reply(*blocks: Block, stop_reason: str | None = None, **message: Any) -> bytes:
    """A whole streamed reply."""
    return encode(events(blocks, stop_reason, **message))


class Stalled(httpx2.AsyncByteStream):
    """Bytes, then silence until the connection is closed."""

    def __init__(self, data: bytes, closed: list[bool]) -> None:
        self._data = data
        self._closed = closed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self._closed.append(True)


Answer = bytes | httpx2.Response | Exception | Callable[[dict[str, Any]], "bytes | httpx2.Response"]


class Scripted(httpx2.AsyncBaseTransport):
    """Answers requests in turn; the last answer is given again and again when ``repeat`` is set."""

    def __init__(self, *answers: Answer, repeat: bool = False) -> None:
        self.answers = list(answers)
        self.repeat = repeat
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.headers: list[httpx2.Headers] = []
        self.urls: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.bodies.append(await request.aread())
        self.requests.append(json.loads(self.bodies[-1]))
        self.headers.append(request.headers)
        self.urls.append(str(request.url))
        answer = self.answers[0] if self.repeat and len(self.answers) == 1 else self.answers.pop(0)
        if callable(answer):
            answer = answer(self.requests[-1])
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx2.Response):
            return answer
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=answer)


def error(status: int, kind: str, headers: dict[str, str] | None = None, **details: Any) -> httpx2.Response:
    """An error answer of the service."""
    body = {"type": "error", "error": {"type": kind, "message": "from the test", "details": details or None}}
    return httpx2.Response(status, headers=headers, json=body)
