"""A live session in words and numbers: for ``GET /sessions/{id}`` and for a reader's first message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambio_lab.events import Status

from .views import describe_usage, iso

if TYPE_CHECKING:
    from .session import Session

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
