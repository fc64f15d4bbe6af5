"""What a request comes to: its blocks in order, their tokens, server-side clearing, the prompt cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .binding import digest, strip
from .images import Measured, tokens
from .models import LEGACY_HEADERS, TOOLSET, Model

LOOK_BACK = 20
LIFE = {"5m": 300.0, "1h": 3600.0}
_CLEARED = "[Old tool result content cleared to save context]"


@dataclass
class Piece:
    """One block as the cache sees it. ``turn`` counts messages; ``marker`` is the life that it asks for."""

    identity: str
    tokens: int
    marker: str | None = None
    turn: int = -1


@dataclass
class Edits:
    """What context editing did to one request."""

    applied: list[dict[str, Any]] = field(default_factory=list)
    compact: bool = False
    compacted_tokens: int = 0


def text_tokens(text: str) -> int:
    return -(-len(text) // 4)


def block_tokens(block: dict[str, Any], model: Model, measured: Measured) -> int:
    """Tokens of one content block, roughly as the service counts them."""
    kind = block["type"]
    if kind == "image":
        return tokens(*measured.size(block["source"], "image"), model)
    if kind == "tool_result":
        content = block.get("content") or ""
        if isinstance(content, str):
            return 12 + text_tokens(content)
        return 12 + sum(block_tokens(inner, model, measured) for inner in content)
    if kind == "tool_use":
        return 30 + text_tokens(str(block["input"]))
    text = block.get("text") or block.get("thinking") or block.get("content") or ""
    return 3 + text_tokens(text)


def tool_tokens(tools: list[dict[str, Any]]) -> int:
    """The definitions plus the tool system prompt."""
    count = 0
    for tool in tools:
        kind = tool.get("type", "custom")
        if kind == TOOLSET:
            off = (tool.get("configs") or {}).get("zoom") or {}
            count += 4520 - (410 if off.get("enabled") is False else 0)
        elif kind in LEGACY_HEADERS:
            count += 480 + 735
        else:
            count += (
                245 if kind.startswith("bash") else 700 if kind.startswith("text_editor") else text_tokens(str(tool))
            )
    return count


def clear_tool_uses(
    messages: list[dict[str, Any]], edit: dict[str, Any], base: int, count: Callable[[dict[str, Any]], int]
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """``clear_tool_uses_20250919`` as of this request.

    The service keeps no state: it goes through the conversation from its start and clears wherever a request would
    have met the trigger, so what was cleared stays cleared and the prefix after it can be cached.
    """
    trigger = edit.get("trigger") or {"type": "input_tokens", "value": 100_000}
    keep = (edit.get("keep") or {"value": 3})["value"]
    at_least = (edit.get("clear_at_least") or {"value": 0})["value"]
    excluded = set(edit.get("exclude_tools") or ())
    result, names = [dict(message) for message in messages], {}
    total, open_uses, cleared, freed = base, [], 0, 0
    for i, message in enumerate(result):
        for j, block in enumerate(message["content"]):
            size = count(block)
            total += size
            if block["type"] == "tool_use":
                names[block["id"]] = block["name"]
            if block["type"] == "tool_result" and names.get(block["tool_use_id"]) not in excluded:
                open_uses.append((i, j, size - count({**block, "content": _CLEARED})))
        if message["role"] != "user":
            continue
        met = total > trigger["value"] if trigger["type"] == "input_tokens" else len(open_uses) > trigger["value"]
        old = open_uses[: max(0, len(open_uses) - keep)]
        saved = sum(gain for _, _, gain in old)
        if not met or not old or saved < max(1, at_least):
            continue
        for m, n, _ in old:
            content = list(result[m]["content"])
            content[n] = {**content[n], "content": _CLEARED}
            result[m]["content"] = content
        open_uses = open_uses[len(old) :]
        total, cleared, freed = total - saved, cleared + len(old), freed + saved
    if not cleared:
        return messages, None
    return result, {"type": edit["type"], "cleared_tool_uses": cleared, "cleared_input_tokens": freed}


def apply_edits(
    body: dict[str, Any], messages: list[dict[str, Any]], model: Model, measured: Measured
) -> tuple[list[dict[str, Any]], Edits]:
    """The messages as the model is shown them, and what was done."""
    base = tool_tokens(body.get("tools") or []) + text_tokens(str(body.get("system") or ""))
    edits = Edits()

    def count(block: dict[str, Any]) -> int:
        return block_tokens(block, model, measured)

    for edit in (body.get("context_management") or {}).get("edits", ()):
        if edit["type"] == "clear_tool_uses_20250919":
            messages, applied = clear_tool_uses(messages, edit, base, count)
            if applied:
                edits.applied.append(applied)
        else:
            total = base + sum(count(block) for message in messages for block in message["content"])
            if total >= (edit.get("trigger") or {"value": 150_000})["value"]:
                edits.compact, edits.compacted_tokens = True, total
    return messages, edits


def pieces(body: dict[str, Any], messages: list[dict[str, Any]], model: Model, measured: Measured) -> list[Piece]:
    """The prompt in the order of the cache: tools, system, messages."""
    result = []
    tools = body.get("tools") or []
    for tool in tools:
        result.append(Piece(digest(strip(tool)), tool_tokens([tool]), _marker(tool)))
    system = body.get("system") or []
    for block in [{"type": "text", "text": system}] if isinstance(system, str) else system:
        result.append(Piece(digest(strip(block)), 3 + text_tokens(block["text"]), _marker(block)))
    settings = digest({name: body.get(name) for name in ("thinking", "output_config", "tool_choice")})
    for turn, message in enumerate(messages):
        blocks = message["content"]
        markers = [found for block in blocks if (found := _marker(block))]
        for block in blocks:
            identity = digest(settings, message["role"], strip(block))
            result.append(Piece(identity, block_tokens(block, model, measured), _marker(block), turn))
        if any(block["type"] == "tool_result" for block in blocks) and markers:
            # markers inside one batch act as one, at the batch's end
            for piece in result[-len(blocks) :]:
                piece.marker = None
            result[-1].marker = markers[-1]
    if body.get("cache_control") and result:
        result[-1].marker = body["cache_control"].get("ttl", "5m")
    return result


def _marker(block: dict[str, Any]) -> str | None:
    control = block.get("cache_control")
    if control:
        return str(control.get("ttl", "5m"))
    inner = block.get("content")
    if isinstance(inner, list):
        return next((found for part in inner if isinstance(part, dict) and (found := _marker(part))), None)
    return None


class PromptCache:
    """Prefixes that ended in a marker, alive for five minutes (or an hour) after their last use."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: dict[str, float] = {}
        self._clock = clock

    def charge(self, prompt: list[Piece], model: Model) -> dict[str, Any]:
        """The input side of ``usage`` for this prompt; remembers its marked prefixes."""
        now = self._clock()
        self._entries = {key: until for key, until in self._entries.items() if until > now}
        keys, sums, key, total = [], [], model.id, 0
        for piece in prompt:
            key = digest(key, piece.identity)
            total += piece.tokens
            keys.append(key)
            sums.append(total)
        marked = [i for i, piece in enumerate(prompt) if piece.marker and sums[i] >= model.min_cache_tokens]
        hit = max((found for i in marked if (found := self._hit(keys, i)) is not None), default=-1)
        read, created = sums[hit] if hit >= 0 else 0, {"5m": 0, "1h": 0}
        if hit >= 0:
            self._entries[keys[hit]] = max(self._entries[keys[hit]], now + LIFE["5m"])
        covered = read
        for i in marked:
            life = prompt[i].marker or "5m"
            created[life] += max(0, sums[i] - covered)
            covered = max(covered, sums[i])
            self._entries[keys[i]] = max(self._entries.get(keys[i], 0), now + LIFE[life])
        return {
            "input_tokens": total - covered,
            "cache_creation_input_tokens": created["5m"] + created["1h"],
            "cache_read_input_tokens": read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": created["5m"],
                "ephemeral_1h_input_tokens": created["1h"],
            },
        }

    def _hit(self, keys: list[str], marker: int) -> int | None:
        """The latest remembered prefix at most 20 blocks before the marker."""
        return next((i for i in range(marker, max(-1, marker - LOOK_BACK), -1) if keys[i] in self._entries), None)
