"""A summary of a conversation, made without the model: for when it no longer fits and the service cannot compact it.

What the user asked is kept in full, what the agent said and did in short, and the last picture as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]
MOST_REQUEST = 8_000  # characters of one user message
MOST_NOTE = 600  # of one thing the agent said
MOST_LINE = 200  # of one call and its result
MOST_LINES = 120
MOST_TOTAL = 40_000
OPENING = (
    "This conversation continues an earlier one that grew too long. Below is what was asked and done so far, in order. "
    "Go on from there; look at the screen before you act."
)


def fold(messages: Sequence[Message]) -> Message:
    """One user message that stands for all of ``messages``."""
    requests, lines = [], []
    answers = _answers(messages)
    for message in messages:
        for block in message["content"]:
            kind = block.get("type")
            if kind == "text" and message["role"] == "user":
                requests.append(_short(block["text"], MOST_REQUEST))
                lines.append(f"USER: {_short(block['text'], MOST_LINE)}")
            elif kind == "text":
                lines.append(f"YOU: {_short(block['text'], MOST_NOTE)}")
            elif kind == "compaction" and block.get("content"):
                lines.append(f"SUMMARY: {_short(block['content'], MOST_REQUEST)}")
            elif kind == "tool_use":
                lines.append(_line(block, answers.get(block["id"], "")))
    if len(lines) > MOST_LINES:
        lines = [f"[{len(lines) - MOST_LINES} earlier lines left out]", *lines[-MOST_LINES:]]
    text = "\n".join([OPENING, "", "What the user asked:", *requests, "", "What happened:", *lines])
    content: list[dict[str, Any]] = [{"type": "text", "text": _short(text, MOST_TOTAL)}]
    if (picture := latest_picture(messages)) is not None:
        content.append(picture)
    return {"role": "user", "content": content}


def latest_picture(messages: Sequence[Message]) -> dict[str, Any] | None:
    """The newest image block, wherever it stands."""
    for message in reversed(messages):
        for block in reversed(message["content"]):
            if (picture := _picture(block)) is not None:
                return picture
    return None


def _answers(messages: Sequence[Message]) -> dict[str, str]:
    """What each call returned, in words."""
    found = {}
    for message in messages:
        for block in message["content"]:
            if block.get("type") == "tool_result":
                content = block.get("content") or []
                words = content if isinstance(content, str) else " ".join(b.get("text", "") for b in content)
                found[block["tool_use_id"]] = ("failed: " if block.get("is_error") else "") + words
    return found


def _line(block: dict[str, Any], answer: str) -> str:
    call = f"{block['name']} {json.dumps(block.get('input', {}), ensure_ascii=False)}"
    return f"- {_short(call, MOST_LINE)} -> {_short(answer, MOST_LINE)}"


def _picture(block: dict[str, Any]) -> dict[str, Any] | None:
    if block.get("type") == "image":
        return block
    content = block.get("content")
    if block.get("type") == "tool_result" and isinstance(content, list):
        pictures = [inner for inner in content if inner.get("type") == "image"]
        return pictures[-1] if pictures else None
    return None


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]} [...] {text[-most // 3 :]}"
