"""The inside of a request: does each message follow from the ones before it?"""

from __future__ import annotations

import re
from typing import Any

from .browser import check_state
from .fields import BROWSER_MEMBERS, MEMBERS
from .models import BROWSER_TOOLSET, TOOLSET, Model
from .refusal import Refused

MAX_MESSAGES = 100_000
TOOLSETS = {TOOLSET: "computer", BROWSER_TOOLSET: "browser"}
_NOTHING: dict[str, Any] = {"role": "user", "content": []}
_ID = re.compile(r"^[a-zA-Z0-9_-]+$")
_USER = frozenset({"text", "image", "tool_result", "document"})
_ASSISTANT = frozenset({"text", "thinking", "redacted_thinking", "tool_use", "compaction"})
_BLOCK_FIELDS = {
    "text": {"type", "text", "cache_control", "citations"},
    "image": {"type", "source", "cache_control", "transformations"},
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
    "tool_use": {"type", "id", "name", "input", "toolset_name", "caller", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "toolset_name", "cache_control"},
    "compaction": {"type", "content", "encrypted_content", "signature", "tool_changes", "cache_control"},
    "document": {"type", "source", "title", "context", "citations", "cache_control"},
}


def normalise(messages: object) -> list[dict[str, Any]]:
    """The messages with string content as one text block; refuses wrong shapes."""
    if not isinstance(messages, list) or not messages:
        raise Refused("messages: at least one message is required")
    if len(messages) > MAX_MESSAGES:
        raise Refused(f"messages: at most {MAX_MESSAGES} messages are permitted")
    result = []
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in {"user", "assistant", "system"}:
            raise Refused(f"messages.{i}.role: Input should be 'user', 'assistant' or 'system'")
        if extra := set(message) - {"role", "content"}:
            raise Refused(f"messages.{i}.{min(extra)}: Extra inputs are not permitted")
        content = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}] if content else []
        if not isinstance(content, list):
            raise Refused(f"messages.{i}.content: Input should be a valid string or list")
        if not content:
            raise Refused(f"messages.{i}: all messages must have non-empty content")
        for j, block in enumerate(content):
            _check_block(block, message["role"], f"messages.{i}.content.{j}")
        result.append({"role": message["role"], "content": content})
    return result


def _check_block(block: object, role: str, path: str) -> None:
    if not isinstance(block, dict) or "type" not in block:
        raise Refused(f"{path}.type: Field required")
    kind = block["type"]
    allowed = {"user": _USER, "assistant": _ASSISTANT, "system": frozenset({"text"})}[role]
    if kind not in allowed:
        raise Refused(f"{path}: `{kind}` blocks are not permitted in {role} messages")
    if extra := set(block) - _BLOCK_FIELDS[kind]:
        raise Refused(f"{path}.{kind}.{min(extra)}: Extra inputs are not permitted")
    if kind == "text" and not (isinstance(block.get("text"), str) and block["text"].strip()):
        raise Refused(f"{path}: text content blocks must contain non-whitespace text")
    if kind == "thinking" and not (isinstance(block.get("signature"), str) and isinstance(block.get("thinking"), str)):
        raise Refused(f"{path}.thinking.signature: Field required")
    if kind == "tool_use":
        if not _ID.match(str(block.get("id", ""))):
            raise Refused(f"{path}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        if not isinstance(block.get("input"), dict) or not block.get("name"):
            raise Refused(f"{path}.tool_use.input: Input should be a valid dictionary")
    if kind == "compaction" and block.get("content") == "":
        raise Refused(f"{path}.compaction.content: empty string content is not allowed")
    if kind == "tool_result":
        _check_result(block, path)


def _check_result(block: dict[str, Any], path: str) -> None:
    content = block.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    for k, part in enumerate(parts):
        if not isinstance(part, dict) or part.get("type") not in {"text", "image", "browser_state"}:
            raise Refused(f"{path}.tool_result.content.{k}: Input should be a text or image block")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise Refused(f"{path}.tool_result.content.{k}.text: Input should be a valid string")
    if block.get("is_error"):
        if any(part["type"] != "text" for part in parts):
            raise Refused(f'{path}.tool_result: all content must be type "text" if "is_error" is true')
        if not any(part.get("text") for part in parts):
            raise Refused(f'{path}.tool_result: content cannot be empty if "is_error" is true')


def live(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the model is shown: everything before the last compaction block is ignored."""
    for i in range(len(messages) - 1, -1, -1):
        content = messages[i]["content"]
        for j in range(len(content) - 1, -1, -1):
            if content[j]["type"] == "compaction" and content[j].get("content") is not None:
                return [{**messages[i], "content": content[j:]}, *messages[i + 1 :]]
    return messages


def check(messages: list[dict[str, Any]], tools: list[dict[str, Any]], model: Model) -> None:
    """Refuse a conversation that the service would not continue. Takes the :func:`live` messages."""
    compacted = messages[0]["content"][0]["type"] == "compaction"
    if messages[0]["role"] != "user" and not compacted:
        raise Refused('messages: first message must use the "user" role')
    if messages[-1]["role"] == "assistant" and not (compacted and len(messages) == 1):
        raise Refused(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    toolsets = {TOOLSETS[kind] for tool in tools if (kind := tool.get("type")) in TOOLSETS}
    seen: set[str] = set()
    for i, message in enumerate(messages):
        if message["role"] == "system":
            if not model.system_messages:
                raise Refused(f"messages.{i}.role: '{model.id}' does not support system messages inside messages")
            continue
        calls = [block for block in message["content"] if block["type"] == "tool_use"]
        for call in calls:
            if call["id"] in seen:
                raise Refused(f"messages.{i}: `tool_use` ids must be unique")
            seen.add(call["id"])
            _check_call(call, toolsets, f"messages.{i}")
        if message["role"] == "assistant":
            _check_answered(calls, messages, i)
        elif i == 0 or messages[i - 1]["role"] != "assistant":
            _no_results(message, i)


def _check_call(call: dict[str, Any], toolsets: set[str], path: str) -> None:
    if "toolset_name" in call and call["toolset_name"] is not None:
        if call["name"] not in {"computer": MEMBERS, "browser": BROWSER_MEMBERS}.get(call["toolset_name"], ()):
            raise Refused(f"{path}: `tool_use` {call['id']} names an unknown toolset member")
        if call["toolset_name"] not in toolsets:
            raise Refused(f"{path}: `tool_use` {call['id']} belongs to a toolset that `tools` does not declare")


def _no_results(message: dict[str, Any], i: int) -> None:
    for block in message["content"]:
        if block["type"] == "tool_result":
            raise Refused(
                f"messages.{i}: unexpected `tool_use_id` found in `tool_result` blocks: {block['tool_use_id']}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )


def _check_answered(calls: list[dict[str, Any]], messages: list[dict[str, Any]], i: int) -> None:
    following = messages[i + 1] if i + 1 < len(messages) else _NOTHING
    blocks: list[dict[str, Any]] = following["content"] if following["role"] == "user" else []
    results = [block for block in blocks if block["type"] == "tool_result"]
    wanted, given = [call["id"] for call in calls], [result.get("tool_use_id") for result in results]
    if missing := [name for name in wanted if name not in given]:
        raise Refused(
            f"messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(missing)}. Each `tool_use` block must have a `tool_result` block in the next message."
        )
    if extra := [name for name in given if name not in wanted]:
        raise Refused(
            f"messages.{i + 1}: unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(map(str, extra))}"
        )
    if len(given) != len(set(given)):
        raise Refused(f"messages.{i + 1}: each tool_use must have a single result. Found multiple `tool_result` blocks")
    if given != wanted:
        raise Refused(f"messages.{i + 1}: `tool_result` blocks must be in the order of their `tool_use` blocks")
    if results and [block["type"] for block in blocks[: len(results)]] != ["tool_result"] * len(results):
        raise Refused(f"messages.{i + 1}: `tool_result` blocks must come before any other content")
    for call, result in zip(calls, results, strict=True):
        if call.get("toolset_name") != result.get("toolset_name"):
            raise Refused(
                f"messages.{i + 1}: `toolset_name` of the `tool_result` for {call['id']} must be "
                f"{call.get('toolset_name')!r}, found {result.get('toolset_name')!r}"
            )
        check_state(call, result, f"messages.{i + 1}")
