"""Where two requests to the model differ, in words for a person."""

from __future__ import annotations

import json
from typing import Any

from ..errors import BundleRefused
from ..recording.bodies import readable
from ..recording.contents import parse_request
from ..recording.schema import Message, check, check_json

LONGEST = 160


def difference(recorded: bytes, now: bytes) -> str | None:
    """What is different about ``now`` (both without images), or ``None`` when it asks the same.

    The model and the conversation count. This package's own prompt, its tools, limits and cache markers may change
    with a new version without making a recording useless.
    """
    try:
        old, new = parse_request(readable(recorded)), parse_request(readable(now))
    except BundleRefused:
        return "the request is not the recorded one"
    if old.get("model") != new.get("model"):
        return f"the run asks the model {new.get('model')}, the recording has {old.get('model')}"
    return _conversation(old.get("messages", []), new.get("messages", []))


def conversation(body: bytes) -> list[dict[str, Any]]:
    """Return the messages of a recorded request without cache markers, checked like those of a run file."""
    messages: list[dict[str, Any]] = unmarked(parse_request(body).get("messages", []))
    for number, message in enumerate(messages, 1):
        where = f"message {number} of a recorded request"
        check_json(message, where)
        if not isinstance(message, dict):
            raise BundleRefused(f"{where} is not an object")
        check(Message, message, where)
    return messages


def _conversation(old: list[Any], new: list[Any]) -> str | None:
    for index, (before, after) in enumerate(zip(old, new, strict=False)):
        before, after = unmarked(before), unmarked(after)
        if before != after:
            return _message(index, before, after)
    if len(old) != len(new):
        return f"the conversation has {len(new)} messages, the recording has {len(old)} at this point"
    return None


def _message(index: int, old: dict[str, Any], new: dict[str, Any]) -> str:
    if old.get("role") != new.get("role"):
        return f"message {index + 1} is the {new.get('role')}'s, in the recording it is the {old.get('role')}'s"
    for before, after in zip(_blocks(old), _blocks(new), strict=False):
        if before == after:
            continue
        if new["role"] == "user" and after.get("type") == "text" and before.get("type") == "text":
            return (
                f"the user now asks something that the recording did not: {_short(after['text'])} "
                f"instead of {_short(before['text'])}"
            )
        if after.get("type") == "tool_result":
            return f"the result of call {after.get('tool_use_id')} is {_result(after)} instead of {_result(before)}"
        return f"message {index + 1} has {_short(json.dumps(after))} instead of {_short(json.dumps(before))}"
    return f"message {index + 1} has {len(_blocks(new))} blocks instead of {len(_blocks(old))}"


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else [{"type": "text", "text": str(content)}]


def unmarked(value: Any) -> Any:
    """A copy without cache markers."""
    if isinstance(value, dict):
        return {name: unmarked(inner) for name, inner in value.items() if name != "cache_control"}
    return [unmarked(inner) for inner in value] if isinstance(value, list) else value


def _result(block: dict[str, Any]) -> str:
    parts = block.get("content") or []
    if isinstance(parts, str):
        return _short(parts)
    words = [
        part.get("text") or f"image {part.get('source', {}).get('data', '')[7:19]}"
        for part in parts
        if isinstance(part, dict)
    ]
    return _short(", ".join(words))


def _short(text: str) -> str:
    return repr(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
