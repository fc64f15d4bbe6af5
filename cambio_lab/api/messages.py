"""What happens in a session, as the messages that ``/ws`` documents.

Five types for every client (``status``, ``tool_execution``, ``agent_response``, ``error``, ``heartbeat``) and
``agent_delta`` for those who ask for ``?stream=true``. Each event is translated once, whatever the number of readers;
a reader's own ``sequence`` is put in front when it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from .. import events

if TYPE_CHECKING:
    from ..sessions.interfaces import SessionView
from .failure import timestamp

Body = dict[str, Any]
Translation = Callable[[Any, "SessionView"], Body | None]


class Encoder:
    """Translates for one server: screenshots are named by their address on it."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def __call__(self, event: events.Event, view: SessionView) -> Body | None:
        """The message for ``event`` (without ``sequence``), or ``None`` when no socket shows it."""
        body = _body(event, view)
        if body is None:
            return None
        if isinstance(event, events.ToolFinished) and view.image_sha256 is not None:
            body["result"] |= {
                "image_path": screenshot_path(self._base_url, view.session_id, view.image_sha256, event.media_type),
                "dimensions": f"{event.width}x{event.height}",
            }
        body["timestamp"] = timestamp(view.time)
        return body


def screenshot_path(base_url: str, session_id: str, sha256: str, media_type: str = "image/png") -> str:
    """Return where this server serves a recorded screenshot."""
    return f"{base_url}sessions/{session_id}/screenshots/{sha256}.{media_type.removeprefix('image/')}"


def heartbeat() -> Body:
    return {"type": "heartbeat", "timestamp": timestamp()}


def failure(error: str, details: str, metadata: dict[str, Any] | None = None) -> Body:
    """An ``error`` for one reader alone: it has no sequence."""
    body: Body = {"type": "error", "error": error, "details": details, "timestamp": timestamp()}
    return body | {"metadata": metadata} if metadata else body


def _status(status: str, content: str, given: Mapping[str, Any] | None = None, /, **ours: Any) -> Body:
    """``given`` may have any keys, a client's own among them; where they meet ``ours``, ours hold."""
    return {"type": "status", "status": status, "content": content, "metadata": {**(given or {}), **ours}}


@singledispatch
def _body(event: events.Event, view: SessionView) -> Body | None:
    """Events that are not registered below are records, not news."""
    return None


def _register(kind: type[events.Event]) -> Callable[[Translation], Translation]:
    def register(function: Translation) -> Translation:
        _body.register(kind, function)
        return function

    return register


@_register(events.StatusChanged)
def _(event: events.StatusChanged, view: SessionView) -> Body | None:
    if event.status == "waiting_approval":
        return None  # the request itself says it next, and says what is asked
    return _status(event.status, event.content or event.status.replace("_", " "), event.metadata)


@_register(events.UserMessage)
def _(event: events.UserMessage, view: SessionView) -> Body:
    return _status(
        "thinking",
        "Message received",
        event.metadata,
        event="user_message",
        message_id=event.message_id,
        message=event.content,
    )


@_register(events.MessageQueued)
def _(event: events.MessageQueued, view: SessionView) -> Body:
    said = {"message_id": event.message_id, "message": event.content}
    return _status(view.state, "Message queued", event.metadata, event="message_queued", queued=True, **said)


@_register(events.MessageDelivered)
def _(event: events.MessageDelivered, view: SessionView) -> Body:
    said = {"message_id": event.message_id, "message": event.content}
    return _status(view.state, "Message delivered", event="message_delivered", **said)


@_register(events.MessageWithdrawn)
def _(event: events.MessageWithdrawn, view: SessionView) -> Body:
    gone = {"message_id": event.message_id, "reason": event.reason}
    return _status(view.state, f"Message not delivered: {event.reason}", event="message_withdrawn", **gone)


@_register(events.TextDelta)
def _(event: events.TextDelta, view: SessionView) -> Body:
    return {"type": "agent_delta", "content": event.text, "metadata": {"kind": "text"}}


@_register(events.ThinkingDelta)
def _(event: events.ThinkingDelta, view: SessionView) -> Body:
    return {"type": "agent_delta", "content": event.text, "metadata": {"kind": "thinking"}}


@_register(events.ToolAnnounced)
def _(event: events.ToolAnnounced, view: SessionView) -> Body:
    metadata = {"kind": "announce", "tool": event.tool, "tool_use_id": event.tool_use_id}
    return {"type": "agent_delta", "content": "", "metadata": metadata}


def _call(event: events.ToolStarted | events.ToolFinished, view: SessionView) -> dict[str, Any]:
    """Whose call it is; with the first call of a reply, what the reply cost."""
    metadata: dict[str, Any] = {"toolset": event.toolset}
    return metadata if view.cost_usd is None else metadata | {"cost_usd": view.cost_usd}


@_register(events.ToolStarted)
def _(event: events.ToolStarted, view: SessionView) -> Body:
    return {
        "type": "tool_execution",
        "tool": event.tool,
        "status": "started",
        "tool_use_id": event.tool_use_id,
        "step": event.step,
        "arguments": event.arguments,
        "metadata": _call(event, view),
    }


@_register(events.ToolFinished)
def _(event: events.ToolFinished, view: SessionView) -> Body:
    timing = event.timing
    result: dict[str, Any] = {
        "text": event.text,
        "timing": {
            "action_ms": round(timing.action, 2),
            "settle_ms": round(timing.settle, 2),
            "encode_ms": round(timing.encode, 2),
            "total_ms": round(timing.total, 2),
        },
    }
    return {
        "type": "tool_execution",
        "tool": event.tool,
        "status": "failed" if event.is_error else "completed",
        "tool_use_id": event.tool_use_id,
        "step": event.step,
        "arguments": event.arguments,
        "result": result,
        "metadata": _call(event, view) | ({"denied": True} if view.denied else {}),
    }


@_register(events.ApprovalRequested)
def _(event: events.ApprovalRequested, view: SessionView) -> Body:
    return _status(
        "waiting_approval",
        f"Waiting for approval: {event.tool}",
        event="approval",
        tool_use_id=event.tool_use_id,
        tool=event.tool,
        arguments=event.arguments,
        shown=event.shown,
        expires_at=timestamp(event.expires_at),
    )


@_register(events.ApprovalDecided)
def _(event: events.ApprovalDecided, view: SessionView) -> Body:
    return _status(
        view.state,
        f"Approval: {event.verdict}",
        event="approval_decided",
        tool_use_id=event.tool_use_id,
        verdict=event.verdict,
        by=event.by,
    )


@_register(events.Retrying)
def _(event: events.Retrying, view: SessionView) -> Body:
    return _status(
        view.state,
        f"The model's service cannot answer now ({event.reason}); trying again in {event.delay_seconds:.0f} s",
        event="retry",
        attempt=event.attempt,
        delay_seconds=round(event.delay_seconds, 1),
        retry_at=timestamp(event.retry_at),
        reason=event.reason,
        dropped_text=event.dropped_text,
    )


@_register(events.HumanInput)
def _(event: events.HumanInput, view: SessionView) -> Body:
    return _status(
        view.state,
        f"{event.viewer} used the desktop",
        event="human_input",
        viewer=event.viewer,
        pointer_events=event.pointer_events,
        key_events=event.key_events,
        clipboard_events=event.clipboard_events,
    )


@_register(events.ControlChanged)
def _(event: events.ControlChanged, view: SessionView) -> Body:
    words = f"{event.viewer} has the mouse" if event.viewer else "The agent has the mouse"
    return _status(view.state, words, event="control", viewer=event.viewer)


@_register(events.PolicyChanged)
def _(event: events.PolicyChanged, view: SessionView) -> Body:
    shown = event.approval if isinstance(event.approval, str) else ", ".join(event.approval)
    return _status(view.state, f"Approval policy: {shown}", event="approval_policy", approval=event.approval)


@_register(events.ModelReplied)
def _(event: events.ModelReplied, view: SessionView) -> Body:
    """Running totals: ``usage`` of the session, ``turn_usage`` of the turn; ``said``: the reply before its calls."""
    return _status(
        view.state,
        f"US$ {view.usage.cost_usd:.4f} so far",
        event="usage",
        usage=view.usage.describe(),
        turn_usage=None if view.turn_usage is None else view.turn_usage.describe(),
        message_id=view.message_id,
        **({"thinking": event.thinking} if event.thinking else {}),
        **({"said": event.text} if event.text and event.stop_reason == "tool_use" else {}),
    )


@_register(events.ConversationCleared)
def _(event: events.ConversationCleared, view: SessionView) -> Body:
    return _status(view.state, "History cleared", event="cleared", cleared_messages=event.messages)


@_register(events.TurnFinished)
def _(event: events.TurnFinished, view: SessionView) -> Body:
    return {
        "type": "agent_response",
        "content": event.text,
        "metadata": {
            "tool_calls": event.tool_calls,
            "processing_time": round(event.processing_time, 3),
            "usage": event.usage.describe(),
            "session_usage": view.usage.describe(),
            "stopped": event.stopped,
            "limit": event.limit,
            "needs_input": event.needs_input,
            "stop_reason": event.stop_reason,
            "message_id": view.reply_id,
        },
    }


@_register(events.TurnFailed)
def _(event: events.TurnFailed, view: SessionView) -> Body:
    return {
        "type": "error",
        "error": event.error,
        "details": event.details,
        "metadata": {
            "tool_calls": event.tool_calls,
            "processing_time": round(event.processing_time, 3),
            "usage": event.usage.describe(),
            "session_usage": view.usage.describe(),
            "fatal": event.fatal,
        },
    }
