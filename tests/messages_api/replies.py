"""What a policy answers with, and how it goes over the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Block = dict[str, Any]


@dataclass
class Reply:
    """Blocks of one assistant message; the server gives ids and signatures. ``stop_reason`` follows from the blocks."""

    blocks: list[Block] = field(default_factory=list)
    stop_reason: str | None = None
    stop_details: dict[str, Any] | None = None
    output_tokens: int | None = None

    def reason(self) -> str:
        if self.stop_reason is not None:
            return self.stop_reason
        return "tool_use" if any(block["type"] == "tool_use" for block in self.blocks) else "end_turn"


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def think(words: str) -> Block:
    """A thinking block; the server signs it."""
    return {"type": "thinking", "thinking": words}


def member(name: str, **arguments: Any) -> Block:
    """A call of a computer toolset member."""
    return {"type": "tool_use", "name": name, "input": arguments, "toolset_name": "computer"}


def browse(name: str, **arguments: Any) -> Block:
    """A call of a browser toolset member."""
    arguments = {key.rstrip("_"): value for key, value in arguments.items()}
    return {"type": "tool_use", "name": name, "input": arguments, "toolset_name": "browser"}


def tool(name: str, **arguments: Any) -> Block:
    """A call of any other tool."""
    return {"type": "tool_use", "name": name, "input": arguments}


def legacy(action: str, **arguments: Any) -> Block:
    """A call of the old single computer tool."""
    return tool("computer", action=action, **arguments)


def click(x: int, y: int) -> Block:
    return member("left_click", coordinate=[x, y])


def screenshot() -> Block:
    return member("screenshot")


def reply(*blocks: Block | str, **options: Any) -> Reply:
    """``reply("Looking.", screenshot())``; strings become text blocks."""
    return Reply([text(block) if isinstance(block, str) else dict(block) for block in blocks], **options)


def _split(words: str, size: int) -> Sequence[str]:
    return [words[i : i + size] for i in range(0, len(words), size)] or [""]


def events(message: dict[str, Any], final: dict[str, Any], piece: int = 12) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documented events of a streamed message. ``final`` holds ``stop_reason``, ``usage`` and so on."""
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**message["usage"], "output_tokens": 1}
    yield "message_start", {"message": start}
    yield "ping", {}
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block, piece)
    delta = {"stop_reason": final["stop_reason"], "stop_sequence": None}
    if final.get("stop_details"):
        delta["stop_details"] = final["stop_details"]
    body = {"delta": delta, "usage": final["usage"]}
    if "context_management" in final:
        body["context_management"] = final["context_management"]
    yield "message_delta", body
    yield "message_stop", {}


def _block_events(index: int, block: Block, piece: int) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = block["type"]
    deltas: list[dict[str, Any]]
    if kind == "text":
        start, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": t} for t in _split(block["text"], piece)]
    elif kind == "thinking":
        start = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": t} for t in _split(block["thinking"], piece) if t]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind == "tool_use":
        start, arguments = {**block, "input": {}}, json.dumps(block["input"])
        # a toolset member's input arrives in one piece, other tools' in several
        pieces = [arguments] if block.get("toolset_name") else _split(arguments, piece)
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in pieces]
    elif kind == "compaction":
        start, deltas = (
            {**block, "content": None},
            [{"type": "compaction_delta", "content": block["content"]}],
        )
    else:
        raise ValueError(f"no wire form for a {kind} block")
    yield "content_block_start", {"index": index, "content_block": start}
    for delta in deltas:
        yield "content_block_delta", {"index": index, "delta": delta}
    yield "content_block_stop", {"index": index}


def encode(name: str, body: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **body}, ensure_ascii=False)}\n\n".encode()
