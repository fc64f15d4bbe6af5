"""Accumulate the raw stream events of the service into a reply, bounded in size and whole; and price it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ModelUnavailable, UnsupportedModel
from ..events import TextDelta, ThinkingDelta, ToolAnnounced, Usage
from ..usage import plausible
from . import models
from .service_errors import BrokenReply
from .tools import Call


@dataclass(frozen=True, slots=True)
class Sent:
    """The request is leaving: the SHA-256 and size of its exact body, and the images in it."""

    sha256: str
    size: int
    images: int


@dataclass(frozen=True, slots=True)
class Started:
    """The reply began. ``usage`` counts the input: all that is known of the cost if the rest never comes."""

    usage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. ``content`` is what must be sent back unchanged; ``calls`` its ``tool_use`` blocks in order."""

    content: list[dict[str, Any]]
    calls: list[Call]
    stop_reason: str
    stop_details: dict[str, Any]
    usage: dict[str, Any]
    request_id: str | None = None

    @property
    def text(self) -> str:
        return "".join(block["text"] for block in self.content if block.get("type") == "text")

    @property
    def message(self) -> dict[str, Any]:
        """This reply as it joins the history."""
        return {"role": "assistant", "content": self.content}

    @property
    def says_anything(self) -> bool:
        """Whether there is more than thinking in it; otherwise the service would refuse to have it back."""
        return any(block.get("type") not in ("thinking", "redacted_thinking") for block in self.content)

    @property
    def compacted(self) -> bool:
        """The service summarised what came before; the summary is the first block."""
        return (
            bool(self.content) and self.content[0].get("type") == "compaction" and bool(self.content[0].get("content"))
        )


Piece = Sent | Started | TextDelta | ThinkingDelta | ToolAnnounced | Reply
"""What comes of a request: the deltas are events already."""
INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
TOKENS_PER_IMAGE = 4784
MAX_REPLY_CHARACTERS = 8_000_000
MAX_REPLY_EVENTS = 400_000
MAX_REPLY_BLOCKS = 1_000


@dataclass
class _Block:
    """One content block while it arrives; pieces are joined once, at its end."""

    start: dict[str, Any]
    pieces: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    open: bool = True

    def content(self, *, strict: bool) -> dict[str, Any]:
        """Return the whole block. With ``strict``, raise :class:`BrokenReply` for arguments that are cut off."""
        block = dict(self.start)
        if self.pieces:
            key = "thinking" if block["type"] == "thinking" else "content" if block["type"] == "compaction" else "text"
            block[key] = (block.get(key) or "") + "".join(self.pieces)
        if text := "".join(self.arguments):
            try:
                block["input"] = json.loads(text)
            except (ValueError, RecursionError):
                if strict:
                    raise BrokenReply("a call's arguments are cut off") from None
        return block


@dataclass
class Reader:
    """Accumulate one stream of raw events within fixed bounds. ``usage`` is what has been counted so far."""

    usage: dict[str, Any] = field(default_factory=dict)
    _blocks: list[_Block] = field(default_factory=list)
    _stop_reason: str | None = None
    _stop_details: dict[str, Any] = field(default_factory=dict)
    _begun: bool = False
    _complete: bool = False
    _characters: int = 0
    _events: int = 0

    def read(self, event: Any) -> Iterator[Piece]:
        """Yield the pieces of one raw event; unknown events and deltas say nothing to us."""
        self._events += 1
        if self._events > MAX_REPLY_EVENTS:
            raise too_long(f"{MAX_REPLY_EVENTS} events")
        kind = event.type
        if kind == "content_block_delta":
            yield from self._delta(self._blocks[event.index], event.delta)
        elif kind == "content_block_start":
            yield from self._start(event.index, event.content_block)
        elif kind == "content_block_stop":
            self._blocks[event.index].open = False
        elif kind == "message_start":
            self._begun = True
            self._count(event.message.usage)
            yield Started(dict(self.usage))
        elif kind == "message_delta":
            self._stop_reason = event.delta.stop_reason
            self._stop_details = event.delta.to_dict().get("stop_details") or {}
            self._count(event.usage)
        elif kind == "message_stop":
            self._complete = True

    def finish(self, request_id: str | None) -> Reply:
        """Return the whole reply, or raise :class:`BrokenReply`: an incomplete reply is never acted upon."""
        if not self._begun or not self._complete or self._stop_reason is None:
            raise BrokenReply("it ended without a stop reason")
        if any(block.open for block in self._blocks):
            raise BrokenReply("a block was not finished")
        content = [block.content(strict=self._stop_reason == "tool_use") for block in self._blocks]
        calls = [
            _call(block, bool(received.arguments))
            for block, received in zip(content, self._blocks, strict=True)
            if block["type"] == "tool_use"
        ]
        if len({call.id for call in calls}) != len(calls):
            raise BrokenReply("two calls share an id")
        try:
            json.dumps(content, allow_nan=False)
        except (ValueError, RecursionError):
            raise BrokenReply("it holds what JSON cannot") from None
        return Reply(
            # The service sends blank text blocks now and then, and refuses to have them back.
            content=[block for block in content if block["type"] != "text" or str(block.get("text") or "").strip()],
            calls=calls,
            stop_reason=self._stop_reason,
            stop_details=self._stop_details,
            usage=self.usage,
            request_id=request_id,
        )

    def _start(self, index: int, block: Any) -> Iterator[Piece]:
        if index != len(self._blocks):
            raise BrokenReply("its blocks are out of order")
        if index >= MAX_REPLY_BLOCKS:
            raise too_long(f"{MAX_REPLY_BLOCKS} blocks")
        start = block.to_dict()
        self._blocks.append(_Block(start))
        self._grow(len(str(start)))
        if start["type"] == "tool_use":
            yield ToolAnnounced(start["id"], start["name"], start.get("toolset_name"))
        elif start["type"] == "text" and start.get("text"):
            yield TextDelta(start["text"])

    def _delta(self, block: _Block, delta: Any) -> Iterator[Piece]:
        kind = delta.type
        if kind == "text_delta":
            self._take(block.pieces, delta.text)
            yield TextDelta(delta.text)
        elif kind == "thinking_delta":
            self._take(block.pieces, delta.thinking)
            yield ThinkingDelta(delta.thinking)
        elif kind == "input_json_delta":
            self._take(block.arguments, delta.partial_json)
        elif kind == "signature_delta":
            self._grow(len(delta.signature))
            block.start["signature"] = delta.signature
        elif kind == "compaction_delta":
            given: dict[str, Any] = delta.to_dict()
            if content := given.pop("content", None):
                self._take(block.pieces, content)
            rest = {key: value for key, value in given.items() if key != "type" and value is not None}
            self._grow(len(str(rest)))
            block.start |= rest
        elif kind == "citations_delta":
            block.start["citations"] = [*(block.start.get("citations") or []), delta.citation.to_dict()]
            self._grow(len(str(delta.citation)))

    def _take(self, pieces: list[str], text: str) -> None:
        self._grow(len(text))
        pieces.append(text)

    def _grow(self, characters: int) -> None:
        self._characters += characters
        if self._characters > MAX_REPLY_CHARACTERS:
            raise too_long(f"{MAX_REPLY_CHARACTERS} characters")

    def _count(self, usage: Any) -> None:
        """Take over the counts of an event; counts are cumulative, and some gateways leave them out or make them up."""
        odd = usage is None or isinstance(usage, list | str | int | float)
        self.usage |= plausible({} if odd else usage.to_dict(warnings=False))


def complete_usage(usage: dict[str, Any], sent: Sent, reply: Reply | None = None) -> dict[str, Any]:
    """Return counts for pricing; what a gateway leaves out is estimated on the high side, so that limits hold."""
    complete = dict(usage)
    if not any(isinstance(usage.get(key), int) for key in INPUT_COUNTS):
        # Images are counted at their largest cost; their base64 is most of the body, so text is bounded by the rest.
        text = sent.size if not sent.images else min(sent.size, 200_000)
        complete["input_tokens"] = text // 3 + sent.images * TOKENS_PER_IMAGE
    if not isinstance(usage.get("output_tokens"), int):
        said = json.dumps(reply.content, ensure_ascii=False) if reply else ""
        complete["output_tokens"] = len(said) // 2 + 1
    return complete


class Slices:
    """Let other tasks run whenever reading a reply has kept the loop busy: its events may all be there at once."""

    LONGEST = 0.004  # seconds

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def rest(self) -> None:
        """Yield to the event loop if this slice is over."""
        if time.perf_counter() - self._since > self.LONGEST:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


def too_long(limit: str) -> ModelUnavailable:
    """Return the error for a reply without end; trying again would only cost the same again."""
    return ModelUnavailable(
        f"The model's reply was cut: it is longer than {limit}.",
        hint="Check the address of the model service (base_url); a whole reply is far shorter.",
    )


def _call(block: dict[str, Any], arrived: bool) -> Call:
    arguments = block.get("input")
    if not isinstance(block["id"], str) or not isinstance(block["name"], str) or not isinstance(arguments, dict):
        raise BrokenReply("a call is malformed")
    return Call(block["id"], block["name"], block.get("toolset_name"), dict(arguments), arrived or bool(arguments))


def price(model: str, usage: Mapping[str, Any]) -> Usage:
    """Return what one reply cost: ``usage`` is the service's object, compaction iterations included.

    Compaction entries of ``iterations`` are not in the top-level sums, so they are added here.
    """
    row = models.DEMO_ROW if model == models.DEMO else models.TABLE.get(models.canonical(model))
    if row is None:
        raise UnsupportedModel(f"No price is known for the model {model!r}.")
    total = _price_one(row.prices, usage)
    iterations = usage.get("iterations")
    for entry in iterations if isinstance(iterations, list) else ():
        if entry.get("type") == "compaction":
            total = total + _price_one(row.prices, entry)
    return replace(total, requests=1)


def _price_one(prices: models.Prices, usage: Mapping[str, Any]) -> Usage:
    fresh = _counted(usage, "input_tokens")
    output = _counted(usage, "output_tokens")
    written = _counted(usage, "cache_creation_input_tokens")
    read = _counted(usage, "cache_read_input_tokens")
    hour = min(_counted(usage.get("cache_creation") or {}, "ephemeral_1h_input_tokens"), written)
    dollars = (
        fresh * prices.input
        + output * prices.output
        + (written - hour) * prices.write_5m
        + hour * prices.write_1h
        + read * prices.read
    ) / 1e6
    if prices.long_above and fresh + written + read > prices.long_above:
        dollars *= prices.long_factor
    thinking = _counted(usage.get("output_tokens_details") or {}, "thinking_tokens")
    return Usage(fresh, output, written, read, thinking, 0, dollars)


def _counted(usage: Any, key: str) -> int:
    value = usage.get(key) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) else 0
