"""The conversation as the model sees it: what is sent, and how large that is.

Models whose thinking is bound to what precedes it get an append-only history: the service clears old results and
summarises when asked to. For the others old screenshots are removed in batches, so that the cache breaks seldom.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from . import models
from .reply import Sent
from .tools import CRASHED, Call, failed, result_block

Message = dict[str, Any]
MARK = b',"cache_control":{"type":"ephemeral"}'
MARKED_TURNS = 3  # of four markers; the fourth is on the system prompt
KEPT_IMAGES = 3
PRUNE_EVERY = 25
REMOVED = {"type": "text", "text": "[An older screenshot was removed.]"}
MEGABYTE = 1_000_000
REQUEST_BYTES = {"anthropic": 32 * MEGABYTE, "google": 30 * MEGABYTE, "bedrock": 20 * MEGABYTE}
SAFE = 0.9  # of a limit; the rest is for the system prompt, the tools and what the next step adds
IMAGE_SHARE = 0.9
COMPACT_AT = 60_000  # input tokens of a request: what is read from the cache costs too, and focus suffers
ONWARD = "Go on with the task. The image shows the screen as you saw it last."
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
    """One message as its JSON, serialised once; the images in it are the bulk of a session's memory."""

    encoded: bytes
    is_user: bool
    images: int
    seen: int
    """Of the images, those in results of calls; the others a person sent."""

    @property
    def message(self) -> Message:
        return json.loads(self.encoded)  # type: ignore[no-any-return]


class PrefixDigest:
    """SHA-256 of growing sequences of chunks: chunks that were there last time are not hashed again."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._states: list[hashlib._Hash] = []

    def digest(self, chunks: Sequence[bytes]) -> str:
        """Return the hex digest of all chunks together. Chunks are compared by identity, except the first."""
        known = 0
        for old, new in zip(self._chunks, chunks, strict=False):
            if old is not new and not (known == 0 and old == new):
                break
            known += 1
        del self._chunks[known:], self._states[known:]
        state = self._states[-1].copy() if self._states else hashlib.sha256()
        for chunk in chunks[known:]:
            state.update(chunk)
            self._chunks.append(chunk)
            self._states.append(state.copy())
        return state.hexdigest()


@dataclass(frozen=True, slots=True)
class Body:
    """The messages of a request: the JSON of each, and how many images they hold."""

    messages: Sequence[bytes]
    images: int
    hasher: PrefixDigest


OUTGOING: ContextVar[tuple[Body, Callable[[Sent], None]] | None] = ContextVar("outgoing", default=None)
"""What the request that is being made is to carry, and who is told when it leaves."""


class Transcript:
    """The history of one session. ``image_side`` is the longest side of its screenshots in pixels."""

    def __init__(self, history: Iterable[Message], info: models.ModelInfo, *, image_side: int = 1280) -> None:
        self.info = info
        self.image_side = image_side
        self.compactable = self.clearable = info.managed
        self.input_tokens = 0
        """Of the last request, cached ones included: what the context weighs."""
        self._hasher = PrefixDigest()
        self._entries = [_entry(message) for message in history]
        self._long = self.images > KEPT_CALLS  # of a continued session old results may have been cleared

    @property
    def messages(self) -> list[Message]:
        return [entry.message for entry in self._entries]

    @property
    def images(self) -> int:
        return sum(entry.images for entry in self._entries)

    @property
    def size(self) -> int:
        """Bytes of all messages as JSON."""
        return sum(len(entry.encoded) for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, message: Message) -> None:
        self._entries.append(_entry(message))

    def drop(self, count: int) -> None:
        """Remove the last ``count`` messages."""
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

    def body(self) -> Body:
        """Return the messages to send, with cache markers on the last blocks of the most recent user turns."""
        marked = [index for index, entry in enumerate(self._entries) if entry.is_user][-MARKED_TURNS:]
        chunks = [entry.encoded for entry in self._entries]
        for index in marked:
            chunks[index] = chunks[index][:-3] + MARK + chunks[index][-3:]  # before the last block's closing }]}
        return Body(chunks, self.images, self._hasher)

    def prune(self) -> None:
        """Remove all images but the last few, together, where the model allows it: each time costs the cache."""
        batch = min(PRUNE_EVERY, self._max_images() - KEPT_IMAGES - 1)
        seen = sum(entry.seen for entry in self._entries)
        if self.info.bound or seen <= KEPT_IMAGES + batch:
            return
        excess = seen - KEPT_IMAGES
        for index, entry in enumerate(self._entries):
            if excess > 0 and entry.seen:
                excess -= entry.seen
                self._entries[index] = _entry(without_images(entry.message))

    @property
    def crowded(self) -> bool:
        """Whether the next request would come near a limit on bytes, images or context."""
        heavy = self.input_tokens > min(COMPACT_AT, int(SAFE * self.info.context))
        most_bytes = int(SAFE * REQUEST_BYTES.get(self.info.platform, 32 * MEGABYTE))
        return heavy or self.size > most_bytes or self.images > self._max_images()

    def onward(self) -> Message:
        """Return what follows a summary: the latest image, so that no request is spent on asking for it."""
        image = latest_image([entry.message for entry in self._entries if entry.images][-1:])
        return {"role": "user", "content": [{"type": "text", "text": ONWARD}, *([image] if image else [])]}

    def context_management(self) -> dict[str, Any] | None:
        """Return the service's own clearing of old results, for models whose history must not be touched here.

        Asked for once there is something to clear, so that short conversations stay within what any gateway knows;
        and from then on, because what was cleared comes back in the first request that does not ask.
        """
        self._long = self._long or self.input_tokens >= CLEARING_TRIGGER // 2
        if not (self.info.bound and self.clearable and self._long):
            return None
        return {"edits": [CLEARING]}

    def _max_images(self) -> int:
        limits = self.info.images
        if self.image_side > limits.many_edge:
            return limits.many - 1
        return int(IMAGE_SHARE * limits.per_request)


def close_open_batch(history: Sequence[Message]) -> list[Message]:
    """Return the history with every call of its last message answered, as interrupted where no answer is there.

    After a crash the last message may hold calls that ran partly or not at all. They are never run again.
    """
    closed = list(history)
    if not closed or closed[-1]["role"] != "assistant":
        return closed
    calls = (block for block in blocks(closed[-1]) if block.get("type") == "tool_use")
    results = [unexecuted(call["id"], call.get("toolset_name"), CRASHED) for call in calls]
    if results:
        closed.append({"role": "user", "content": results})
    return closed


def user_text(text: str, images: Iterable[tuple[bytes, str]] = ()) -> Message:
    """Return a user message: images (content and media type), then one text block."""
    shown = [
        {"type": "image", "source": {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}}
        for data, kind in images
    ]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def unexecuted(call_id: str, toolset: str | None, words: str) -> dict[str, Any]:
    """Return the result of a call that did not run, or not to its end."""
    return result_block(Call(call_id, "", toolset, {}), failed(words))


def _entry(message: Message) -> Entry:
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    message = {"role": message["role"], "content": content}
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    given = sum(block.get("type") == "image" for block in content)
    seen = sum(inner.get("type") == "image" for block in content for inner in inner_blocks(block))
    return Entry(text.encode("utf-8", "replace"), message["role"] == "user", given + seen, seen)


def latest_image(messages: Sequence[Message]) -> dict[str, Any] | None:
    """Return the newest image block, wherever it stands."""
    for message in reversed(messages):
        for block in reversed(blocks(message)):
            images: list[dict[str, Any]] = [
                part for part in (block, *inner_blocks(block)) if part.get("type") == "image"
            ]
            if images:
                return images[-1]
    return None


def blocks(message: Message) -> list[dict[str, Any]]:
    content = message["content"]
    return content if isinstance(content, list) else []


def inner_blocks(block: dict[str, Any]) -> list[dict[str, Any]]:
    content = block.get("content")
    return content if block.get("type") == "tool_result" and isinstance(content, list) else []


def without_images(message: Message) -> Message:
    def plain(block: dict[str, Any]) -> dict[str, Any]:
        if block.get("type") == "image":
            return REMOVED
        if any(inner.get("type") == "image" for inner in inner_blocks(block)):
            return {**block, "content": [plain(inner) for inner in block["content"]]}
        return block

    return {"role": message["role"], "content": [plain(block) for block in message["content"]]}


def without_thinking(message: Message) -> Message:
    kept = [block for block in message["content"] if block.get("type") not in ("thinking", "redacted_thinking")]
    return {**message, "content": kept}
