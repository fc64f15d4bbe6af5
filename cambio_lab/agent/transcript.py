"""The conversation as the model sees it: what is sent, what it weighs, and how it is kept within every limit.

Models whose thinking is bound to what precedes it get an append-only history; the service summarises it when it is
asked to, which is also what shrinks the requests, and clears old results in between. For the others old pictures are
taken out in batches, so that the cache breaks seldom. Where the service does neither, the conversation is folded into a
summary of our own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from . import models
from .fold import fold, latest_picture
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
COMPACT_AT = 60_000  # input tokens of a request: what is read from the cache costs too, and focus suffers
ONWARD = "Go on with the task. The picture shows the screen as you saw it last."
CLEARING_TRIGGER = 50_000  # input tokens
KEPT_CALLS = 10
CLEARING = {
    # `keep` counts calls, not turns: a click, a text and a screenshot are three. Measured in benchmarks/thrift.py.
    "type": "clear_tool_uses_20250919",
    "trigger": {"type": "input_tokens", "value": CLEARING_TRIGGER},
    "keep": {"type": "tool_uses", "value": KEPT_CALLS},
    "clear_at_least": {"type": "input_tokens", "value": 30_000},
}


@dataclass(slots=True)
class Entry:
    """One message as its JSON, made once; the pictures in it are the bulk of a session's memory."""

    encoded: bytes
    is_user: bool
    pictures: int

    @property
    def message(self) -> Message:
        return json.loads(self.encoded)  # type: ignore[no-any-return]


class Transcript:
    """The history of one session. ``pictures_side`` is the longest side of its screenshots in pixels."""

    def __init__(self, history: Iterable[Message], info: models.ModelInfo, *, pictures_side: int = 1280) -> None:
        self.info = info
        self.pictures_side = pictures_side
        self.compactable = self.clearable = info.managed
        self.input_tokens = 0
        """Of the last request, cached ones included: what the context weighs."""
        self._hasher = PrefixDigest()
        self._entries = [_entry(message) for message in history]
        self._long = self.pictures > KEPT_CALLS  # of a session taken up again, old results may have been cleared

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
        self.input_tokens = 0

    def close_open_batch(self) -> None:
        """Answer the calls of the last message, if they are unanswered, as interrupted."""
        if self._entries and not self._entries[-1].is_user:
            for message in close_open_batch([self._entries[-1].message])[1:]:
                self.append(message)

    def adopt_compaction(self, reply: Message) -> int:
        """A reply that begins with a summary replaces everything before it; how many messages left."""
        count = len(self._entries)
        self._entries = [_entry(reply)]
        self.input_tokens = 0
        return count

    def body(self) -> Body:
        """The messages to send, with cache markers on the last blocks of the most recent user turns."""
        marked = [index for index, entry in enumerate(self._entries) if entry.is_user][-MARKED_TURNS:]
        chunks = [entry.encoded for entry in self._entries]
        for index in marked:
            chunks[index] = chunks[index][:-3] + MARK + chunks[index][-3:]  # before the last block's closing }]}
        return Body(chunks, self.pictures, self._hasher)

    def prune(self) -> None:
        """Take out all pictures but the last few, together, where the model allows it: each time costs the cache."""
        batch = min(PRUNE_EVERY, self._most_pictures() - KEPT_PICTURES - 1)
        if self.info.bound or self.pictures <= KEPT_PICTURES + batch:
            return
        excess = self.pictures - KEPT_PICTURES
        for index, entry in enumerate(self._entries):
            if excess > 0 and entry.pictures:
                excess -= entry.pictures
                self._entries[index] = _entry(_without_pictures(entry.message))

    @property
    def crowded(self) -> bool:
        """Whether the next request would come near a limit on bytes, pictures or context."""
        heavy = self.input_tokens > min(COMPACT_AT, int(SAFE * self.info.context))
        return heavy or self.size > self._most_bytes() or self.pictures > self._most_pictures()

    def fold(self) -> tuple[int, Message]:
        """Replace everything by a summary made here, where the service cannot or did not make one.

        Returns how many messages left and the one that stands for them.
        """
        count, message = len(self._entries), fold(self.messages)
        self.clear()
        self._entries = [_entry(message)]
        return count, message

    def onward(self) -> Message:
        """What follows a summary: a word to go on and the latest picture, so that no turn is spent on asking for it."""
        picture = latest_picture([entry.message for entry in self._entries if entry.pictures][-1:])
        return {"role": "user", "content": [{"type": "text", "text": ONWARD}, *([picture] if picture else [])]}

    def context_management(self) -> dict[str, Any] | None:
        """The service's own clearing of old results, for models whose history must not be touched here.

        Asked for once there is something to clear, so that short conversations stay within what any gateway knows;
        and from then on, because what was cleared comes back in the first request that does not ask.
        """
        self._long = self._long or self.input_tokens >= CLEARING_TRIGGER // 2
        if not (self.info.bound and self.clearable and self._long):
            return None
        return {"edits": [CLEARING]}

    def _most_bytes(self) -> int:
        return int(SAFE * REQUEST_BYTES.get(self.info.platform, 32 * MEGABYTE))

    def _most_pictures(self) -> int:
        limits = self.info.images
        if self.pictures_side > limits.many_edge:
            return limits.many - 1
        return int(MOST_PICTURES * limits.per_request)


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


def last_results(transcript: Transcript) -> list[dict[str, Any]]:
    """Return the tool results of the newest message; empty when it holds none."""
    newest = transcript.messages[-1:]
    return [block for message in newest for block in _blocks(message) if block.get("type") == "tool_result"]


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
    return Entry(text.encode("utf-8", "replace"), message["role"] == "user", _count_pictures(content))


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
