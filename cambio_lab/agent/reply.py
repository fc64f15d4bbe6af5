"""From the SDK's stream events to small pieces, and the test of what counts as a whole reply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .service_errors import BrokenReply
from .tools.call import Call


@dataclass(frozen=True, slots=True)
class Sent:
    """The request is leaving: the SHA-256 and size of its exact body, and the pictures in it."""

    sha256: str
    size: int
    images: int


@dataclass(frozen=True, slots=True)
class Started:
    """The reply began. ``usage`` counts the input: all that is known of the cost if the rest never comes."""

    usage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class Announced:
    """A call's first words: which tool, not yet with what."""

    id: str
    name: str
    toolset: str | None


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


Piece = Sent | Started | Text | Thought | Announced | Reply


@dataclass
class Reader:
    """Follows one stream. ``usage`` is what has been counted so far."""

    usage: dict[str, Any] = field(default_factory=dict)
    _inputs: dict[int, list[str]] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)
    _complete: bool = False

    def read(self, event: Any) -> Iterator[Piece]:
        """The pieces of one event; unknown events and deltas say nothing to us."""
        kind = event.type
        if kind == "text":
            yield Text(event.text)
        elif kind == "thinking":
            yield Thought(event.thinking)
        elif kind == "content_block_delta":
            if event.delta.type == "input_json_delta":
                self._inputs.setdefault(event.index, []).append(event.delta.partial_json)
        elif kind == "content_block_start":
            self._open.add(event.index)
            block = event.content_block
            if block.type == "tool_use":
                yield Announced(block.id, block.name, getattr(block, "toolset_name", None))
        elif kind == "content_block_stop":
            self._open.discard(event.index)
        elif kind == "message_start":
            self.usage = event.message.usage.to_dict()
            yield Started(self.usage)
        elif kind == "message_stop":
            self._complete = True

    def finish(self, message: Any, request_id: str | None) -> Reply:
        """The whole reply, or :class:`BrokenReply`: a reply with anything missing is never acted upon."""
        if not self._complete or message.stop_reason is None:
            raise BrokenReply("it ended without a stop reason")
        if self._open:
            raise BrokenReply("a block was not finished")
        content = [block.to_dict() for block in message.content]
        calls = [
            _call(block, index in self._inputs)
            for index, block in enumerate(message.content)
            if block.type == "tool_use"
        ]
        if len({call.id for call in calls}) != len(calls):
            raise BrokenReply("two calls share an id")
        if message.stop_reason == "tool_use":
            self._check_inputs(content)
        try:
            json.dumps(content, allow_nan=False)
        except ValueError:
            raise BrokenReply("it holds what JSON cannot") from None
        return Reply(
            # the service sends blank text blocks now and then, and refuses to have them back
            content=[block for block in content if block.get("type") != "text" or str(block.get("text", "")).strip()],
            calls=calls,
            stop_reason=str(message.stop_reason),
            stop_details=message.stop_details.to_dict() if message.stop_details else {},
            usage=message.usage.to_dict(),
            request_id=request_id,
        )

    def _check_inputs(self, content: list[dict[str, Any]]) -> None:
        """The SDK parses what has arrived of a call's arguments; here they must be all there, and the same."""
        for index, pieces in self._inputs.items():
            text = "".join(pieces)
            if not text or index >= len(content):
                continue
            try:
                whole = json.loads(text)
            except ValueError:
                raise BrokenReply("a call's arguments are cut off") from None
            if whole != content[index].get("input"):
                raise BrokenReply("a call's arguments do not add up")


def _call(block: Any, told: bool) -> Call:
    arguments = block.input
    if not isinstance(block.id, str) or not isinstance(block.name, str) or not isinstance(arguments, dict):
        raise BrokenReply("a call is malformed")
    return Call(
        block.id, block.name, getattr(block, "toolset_name", None), dict(arguments), block, told or bool(arguments)
    )
