"""The conversation as the model sees it: what is sent, what it weighs, and how it is kept within every limit.

Models whose thinking is bound to what precedes it get an append-only history; the service summarises it when it is
asked to (``compact_20260112``), which is also what shrinks the requests. For the others old pictures are taken out in
batches, so that the cache breaks seldom. Where neither helps, the conversation is folded into a summary of our own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import models
from .fold import fold
from .splice import Body, PrefixDigest
from .tools.call import CRASHED

Message = dict[str, Any]
MARK = b',"cache_control":{"type":"ephemeral"}'
MARKED_TURNS = 3  # of four markers; the fourth is on the system prompt
KEPT_PICTURES = 3
PRUNE_EVERY = 25
REMOVED = {"type": "text", "text": "[An older screenshot was taken out.]"}
MEGABYTE = 1_000_000
REQUEST_BYTES = {"anthropic": 32 * MEGABYTE, "google": 30 * MEGABYTE, "bedrock": 20 * MEGABYTE}
SAFE = 0.9  # of a limit; the rest is for the system prompt, the tools and what the next step adds
MOST_PICTURES = 0.9
COMPACT_LEAST, COMPACT_MOST = 50_000, 100_000  # input tokens; the service takes nothing below 50,000
COMPACT_BETA = "compact-2026-01-12"


@dataclass(slots=True)
class Entry:
    """One message and its JSON, made once."""

    message: Message
    encoded: bytes
    pictures: int

    @property
    def is_user(self) -> bool:
        return bool(self.message["role"] == "user")


class Transcript:
    """The history of one session. ``pictures_side`` is the longest side of its screenshots in pixels."""

    def __init__(self, history: Iterable[Message], info: models.ModelInfo, *, pictures_side: int = 1280) -> None:
        self.info = info
        self.pictures_side = pictures_side
        self.input_tokens = 0
        """Of the last request, cached ones included: what the context weighs."""
        self._sent_bytes = 0
        self._hasher = PrefixDigest()
        self._entries = [_entry(message) for message in history]

    @property
    def messages(self) -> list[Message]:
        return [entry.message for entry in self._entries]

    @property
    def pictures(self) -> int:
        return sum(entry.pictures for entry in self._entries)

    @property
    def size(self) -> int:
        """Bytes of all messages as JSON."""
        return sum(len(entry.encoded) for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, message: Message) -> None:
        self._entries.append(_entry(message))

    def drop(self, count: int) -> None:
        """Take the last ``count`` messages out."""
        if count:
            del self._entries[-count:]

    def clear(self) -> None:
        self._entries.clear()
        self.input_tokens = self._sent_bytes = 0

    def adopt_compaction(self, reply: Message) -> int:
        """A reply that begins with a summary replaces everything before it; how many messages left."""
        count = len(self._entries)
        self._entries = [_entry(reply)]
        return count

    def body(self) -> Body:
        """The messages to send, with cache markers on the last blocks of the most recent user turns."""
        marked = [index for index, entry in enumerate(self._entries) if entry.is_user][-MARKED_TURNS:]
        chunks = [entry.encoded for entry in self._entries]
        for index in marked:
            chunks[index] = chunks[index][:-3] + MARK + chunks[index][-3:]  # before the last block's closing }]}
        return Body(chunks, self.pictures, self._hasher)

    def measure(self, input_tokens: int, sent_bytes: int) -> None:
        """What the service counted for the last request of this size."""
        self.input_tokens, self._sent_bytes = input_tokens, sent_bytes

    def make_room(self) -> tuple[int, Message] | None:
        """Before a request: keep it within the limits on bytes, pictures and context.

        Pictures are taken out silently where that is allowed. When the whole conversation had to be folded, returns
        how many messages left and the one that stands for them.
        """
        if not self.info.bound and self.pictures > KEPT_PICTURES + min(PRUNE_EVERY, self._most_pictures() - 4):
            self._prune()
        if self._fits():
            return None
        return self.fold()

    def fold(self) -> tuple[int, Message]:
        """Replace everything by a summary made here; used where the service cannot or did not make one."""
        count, message = len(self._entries), fold(self.messages)
        self.clear()
        self._entries = [_entry(message)]
        return count, message

    def context_management(self) -> dict[str, Any] | None:
        """The service's own compaction, set from what a request of this conversation weighs."""
        if not self.info.compaction:
            return None
        trigger = {"type": "input_tokens", "value": self.compact_at()}
        return {"edits": [{"type": "compact_20260112", "trigger": trigger}]}

    def compact_at(self) -> int:
        """Input tokens at which to compact: well before the request's bytes or pictures meet their limits."""
        value = COMPACT_MOST
        if self.input_tokens > 10_000 and self._sent_bytes:
            by_bytes = 0.7 * self._most_bytes() * self.input_tokens / self._sent_bytes
            value = min(value, int(by_bytes))
        if self.pictures > 2 and self.input_tokens > 10_000:
            value = min(value, int(0.7 * self._most_pictures() * self.input_tokens / self.pictures))
        return max(COMPACT_LEAST, value // 10_000 * 10_000)

    def _fits(self) -> bool:
        too_long = not self.info.compaction and self.input_tokens > 0.8 * self.info.context
        return self.size <= self._most_bytes() and self.pictures <= self._most_pictures() and not too_long

    def _most_bytes(self) -> int:
        return int(SAFE * REQUEST_BYTES.get(self.info.platform, 32 * MEGABYTE))

    def _most_pictures(self) -> int:
        limits = self.info.images
        if self.pictures_side > limits.many_edge:
            return limits.many - 1
        return int(MOST_PICTURES * limits.per_request)

    def _prune(self) -> None:
        """Take out all pictures but the last few, together: each time costs the cache what follows the first."""
        excess = self.pictures - KEPT_PICTURES
        for index, entry in enumerate(self._entries):
            if excess <= 0:
                return
            if entry.pictures:
                excess -= entry.pictures
                self._entries[index] = _entry(_without_pictures(entry.message))


def close_open_batch(history: Sequence[Message]) -> list[Message]:
    """The history with every call of its last message answered, as interrupted where no answer is there.

    After a crash the last message may hold calls that ran partly or not at all. They are never run again.
    """
    closed = list(history)
    if not closed or closed[-1]["role"] != "assistant":
        return closed
    results = [_interrupted(block) for block in _blocks(closed[-1]) if block.get("type") == "tool_use"]
    if results:
        closed.append({"role": "user", "content": results})
    return closed


def user_text(text: str) -> Message:
    """A user message of one text block."""
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def _interrupted(block: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "type": "tool_result",
        "tool_use_id": block["id"],
        "content": [{"type": "text", "text": CRASHED}],
        "is_error": True,
    }
    if block.get("toolset_name") is not None:
        result["toolset_name"] = block["toolset_name"]
    return result


def _entry(message: Message) -> Entry:
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    message = {"role": message["role"], "content": content}
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Entry(message, text.encode("utf-8", "replace"), _count_pictures(content))


def _blocks(message: Message) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else []


def _inner(block: dict[str, Any]) -> list[dict[str, Any]]:
    content = block.get("content")
    return content if block.get("type") == "tool_result" and isinstance(content, list) else []


def _count_pictures(content: list[dict[str, Any]]) -> int:
    return sum(
        (block.get("type") == "image") + sum(inner.get("type") == "image" for inner in _inner(block))
        for block in content
    )


def _without_pictures(message: Message) -> Message:
    def plain(block: dict[str, Any]) -> dict[str, Any]:
        if block.get("type") == "image":
            return REMOVED
        if any(inner.get("type") == "image" for inner in _inner(block)):
            return {**block, "content": [plain(inner) for inner in block["content"]]}
        return block

    return {"role": message["role"], "content": [plain(block) for block in message["content"]]}
