"""What a session tells about itself, and what it hands to whoever turns its events into messages."""

from __future__ import annotations

import datetime
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cambio_lab.events import Event, Status, Usage
from cambio_lab.store import SessionRow

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True, slots=True)
class SessionView:
    """The session at the moment of one event. ``time`` is the event's, in epoch seconds.

    ``message_id`` is the user message of the running turn, ``reply_id`` the stored answer (at its end only),
    ``image_sha256`` the digest of the picture that the event carries: its address ends in it, ``cost_usd`` what the
    reply cost whose first call the event is about.
    """

    session_id: str
    time: float
    state: Status
    steps: int
    usage: Usage
    message_id: str | None = None
    reply_id: str | None = None
    image_sha256: str | None = None
    control: str | None = None
    cost_usd: float | None = None
    denied: bool = False
    """A person denied the call that the event is about."""
    turn_usage: Usage | None = None
    """What the running turn has used so far."""


Encode = Callable[[Event, SessionView], dict[str, Any] | None]
"""Turns an event into the body of a message (without ``sequence``), or ``None`` when no socket shows it."""


class Viewer(Protocol):
    """Someone who watches the desktop."""

    name: str

    def may_act_changed(self) -> None:
        """Called on the event loop at the moment in which :meth:`Session.may_act` may answer differently."""

    def session_ended(self, reason: str) -> None:
        """Called once, on the event loop, when there is nothing to watch any more."""


class Clock(Protocol):
    """Wall time for what people read, monotonic time for how long things last: the wall clock may be set."""

    def time(self) -> float: ...

    def monotonic(self) -> float: ...


class SystemClock:
    def time(self) -> float:
        return clock.time()

    def monotonic(self) -> float:
        return clock.monotonic()


def iso(seconds: float) -> str:
    """Epoch seconds as ``2024-01-15T10:30:00Z``."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_usage(usage: Usage) -> dict[str, Any]:
    """Tokens by kind, requests and ``cost_usd``, as a message or a row carries them."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_creation_input_tokens": usage.cache_creation_input_tokens,
        "cache_read_input_tokens": usage.cache_read_input_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "requests": usage.requests,
        "cost_usd": round(usage.cost_usd, 6),
    }


def describe_row(row: SessionRow) -> dict[str, Any]:
    """The body of ``GET /sessions/{id}`` for a session that is not live."""
    return {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "state": "error" if row.status == "error" else "ended",
        "created_at": iso(row.created_at),
        "ended_at": None if row.ended_at is None else iso(row.ended_at),
        "end_reason": row.end_reason,
        "container_id": row.container_id,
        "vnc_port": None,
        "desktop": row.desktop_kind,
        "model": row.model,
        "config": row.config,
        "steps": row.steps,
        "usage": describe_usage(Usage(**row.usage)),
        "record_bytes": row.record_bytes,
        "pinned": bool(row.pinned),
        "control": None,
        "sequence": row.last_sequence,
    }


WORDS: dict[Status, str] = {
    "idle": "Waiting for a message",
    "thinking": "The agent thinks",
    "acting": "The agent acts",
    "waiting_approval": "Waiting for approval",
    "paused": "Paused",
    "stopped": "Stopped",
    "ended": "The session is over",
    "error": "The session failed",
}


def snapshot(session: Session) -> dict[str, Any]:
    """``status``, ``content`` and ``metadata`` of how the session stands."""
    metadata: dict[str, Any] = {
        "event": "snapshot",
        "session_status": session.status,
        "name": session.name,
        "steps": session.steps,
        "usage": describe_usage(session.usage),
        "viewer": session.control,
        "message_id": session.turn.message_id if session.turn and session.life.working else None,
    }
    if (pending := session.gate.pending) is not None:
        metadata["approval"] = {
            "tool_use_id": pending.tool_use_id,
            "tool": pending.tool,
            "arguments": pending.arguments,
            "shown": pending.shown,
            "expires_at": iso(pending.expires_at),
        }
    words = WORDS[session.state]
    if session.journal.failure is not None:
        words = f"{words}. {session.journal.failure.describe()}"
    return {"status": session.state, "content": words, "metadata": metadata}


def describe(session: Session) -> dict[str, Any]:
    """Everything but addresses, which depend on how the server is reached."""
    desktop = session.desktop
    return {
        "id": session.id,
        "name": session.name,
        "status": session.status,
        "state": session.state,
        "created_at": iso(session.created_at),
        "ended_at": None if session.ended_at is None else iso(session.ended_at),
        "end_reason": session.end_reason,
        "container_id": desktop.container_id,
        "vnc_port": desktop.vnc_port,
        "desktop": session.desktop_kind,
        "isolated": desktop.isolated,
        "display": str(desktop.size),
        "image_digest": desktop.image_digest,
        "model": session.model,
        "config": session.config.given(),
        "steps": session.steps,
        "usage": describe_usage(session.usage),
        "record_bytes": session.record_bytes,
        "pinned": session.pinned,
        "control": session.control,
        "sequence": session.journal.broadcast.sequence,
    }
