"""One message of the agent socket, as a reader of :meth:`Session.stream` sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import connect

from .discovery import Address


class NoRedirect(connect):
    """A WebSocket connection that treats a redirect as a refusal: the token belongs to the address that was asked."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the refusal itself, whatever it points to."""
        return exc


def open_socket(address: Address, url: str, **options: Any) -> NoRedirect:
    """Return the connection to ``url`` on the server at ``address``, with its token and trusted certificates."""
    if address.loopback:  # a proxy variable must not send a loopback address, and its token, elsewhere
        options["proxy"] = None
    return NoRedirect(url, additional_headers=address.headers, ssl=address.tls(), close_timeout=1, **options)


@dataclass(frozen=True)
class Message:
    """``type`` is one of the documented five, ``agent_delta``, or ``connection``, which this client says itself."""

    type: str
    content: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sequence: int | None = None
    timestamp: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole decoded message."""

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Message:
        """From decoded JSON; fields that a message does not have stay empty."""
        metadata, content, sequence = raw.get("metadata"), raw.get("content"), raw.get("sequence")
        return cls(
            type=str(raw.get("type", "")),
            content=content if isinstance(content, str) else "",
            metadata=metadata if isinstance(metadata, Mapping) else {},
            sequence=sequence if isinstance(sequence, int) else None,
            timestamp=str(raw.get("timestamp", "")),
            raw=raw,
        )

    @property
    def event(self) -> str:
        """What a ``status`` message is about (``user_message``, ``approval``, ...), else empty."""
        return str(self.metadata.get("event", "")) if self.type == "status" else ""

    @property
    def status(self) -> str:
        """``status`` of a ``status`` or ``tool_execution`` message."""
        return str(self.raw.get("status", ""))

    @property
    def tool(self) -> str:
        """The tool of a ``tool_execution`` message, or of the call that an ``agent_delta`` announces."""
        return str(self.raw.get("tool") or self.metadata.get("tool") or "")

    @property
    def arguments(self) -> Mapping[str, Any]:
        found = self.raw.get("arguments")
        return found if isinstance(found, Mapping) else {}

    @property
    def result(self) -> Mapping[str, Any]:
        found = self.raw.get("result")
        return found if isinstance(found, Mapping) else {}

    @property
    def refusal(self) -> bool:
        """An error that was said to this connection alone: what it asked for was refused."""
        return self.type == "error" and self.sequence is None

    @property
    def ends_turn(self) -> bool:
        """The one good or bad end of a turn."""
        return self.type == "agent_response" or (self.type == "error" and not self.refusal)


def connection(content: str, **metadata: Any) -> Message:
    """What this client has to say about its own connection."""
    return Message("connection", content, metadata)
