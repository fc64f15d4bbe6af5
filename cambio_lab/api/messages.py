"""What happens in a session, as the messages that ``/ws`` documents.

Five types for every client (``status``, ``tool_execution``, ``agent_response``, ``error``, ``heartbeat``) and
``agent_delta`` for those who ask for ``?stream=true``. Each event is translated once, whatever the number of readers;
a reader's own ``sequence`` is put in front when it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from prometheus_client import Counter, Histogram

from .. import events
from ..events import timestamp

if TYPE_CHECKING:
    from ..sessions import SessionView

Body = dict[str, Any]


class Encoder:
    """Translates, and counts, for one server: screenshots are named by their address on it."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def __call__(self, event: events.Event, view: SessionView) -> Body | None:
        """The message for ``event`` (without ``sequence``), or ``None`` when no socket shows it."""
        _count(event)
        translate = _TRANSLATIONS.get(type(event))
        body = None if translate is None else translate(event, view)
        if body is None:  # a record, not news
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


def _status_changed(event: events.StatusChanged, view: SessionView) -> Body | None:
    if event.status in ("waiting_approval", "waiting"):
        return None  # the request itself says it next, and says what is asked
    return _status(event.status, event.content or event.status.replace("_", " "), event.metadata)


def _model_replied(event: events.ModelReplied, view: SessionView) -> Body:
    """Running totals: ``usage`` of the session, ``turn_usage`` of the turn; ``said``: what the reply says."""
    return _status(
        view.state,
        f"US$ {view.usage.cost_usd:.4f} so far",
        event="usage",
        usage=view.usage.describe(),
        turn_usage=None if view.turn_usage is None else view.turn_usage.describe(),
        message_id=view.message_id,
        **({"thinking": event.thinking} if event.thinking else {}),
        **({"said": event.text} if event.text else {}),
    )


def _delta(content: str, **metadata: str) -> Body:
    return {"type": "agent_delta", "content": content, "metadata": metadata}


def _tool_execution(event: events.ToolStarted | events.ToolFinished, view: SessionView) -> Body:
    """A call; the first call of a reply says what the reply cost."""
    metadata: dict[str, Any] = {"toolset": event.toolset}
    if view.cost_usd is not None:
        metadata["cost_usd"] = view.cost_usd
    body: Body = {
        "type": "tool_execution",
        "tool": event.tool,
        "status": "started",
        "tool_use_id": event.tool_use_id,
        "step": event.step,
        "arguments": event.arguments,
        "metadata": metadata,
    }
    if isinstance(event, events.ToolFinished):
        body["status"] = "failed" if event.is_error else "completed"
        timing = {f"{part}_ms": round(milliseconds, 2) for part, milliseconds in asdict(event.timing).items()}
        body["result"] = {"text": event.text, "timing": timing}
        if event.box is not None:
            body["result"]["box"] = asdict(event.box)
        if event.actor == "human":
            metadata["actor"] = "human"
        if view.denied:
            metadata["denied"] = True
        elif event.ended != "ran":
            metadata["ended"] = event.ended
    return body


def _turn_metadata(event: events.TurnFinished | events.TurnFailed, view: SessionView) -> dict[str, Any]:
    return {
        "tool_calls": event.tool_calls,
        "processing_time": round(event.processing_time, 3),
        "usage": event.usage.describe(),
        "session_usage": view.usage.describe(),
    }


def _turn_finished(event: events.TurnFinished, view: SessionView) -> Body:
    metadata = _turn_metadata(event, view) | {
        "stopped": event.stopped,
        "limit": event.limit,
        "needs_input": event.needs_input,
        "stop_reason": event.stop_reason,
        "message_id": view.reply_id,
        "unfinished": event.unfinished,
    }
    if event.answer is not None:
        metadata["answer"] = event.answer
    return {"type": "agent_response", "content": event.text, "metadata": metadata}


def _fields(event: events.Event, *names: str) -> dict[str, Any]:
    return {name: getattr(event, name) for name in names}


def _message(event: events.UserMessage | events.MessageQueued | events.MessageDelivered) -> dict[str, Any]:
    return {"message_id": event.message_id, "message": event.content}


def _policy_changed(event: events.PolicyChanged, view: SessionView) -> Body:
    policy = event.approval if isinstance(event.approval, str) else ", ".join(event.approval)
    return _status(view.state, f"Approval policy: {policy}", event="approval_policy", approval=event.approval)


def _retrying(event: events.Retrying, view: SessionView) -> Body:
    words = f"The model's service cannot answer now ({event.reason}); trying again in {event.delay_seconds:.0f} s"
    when = {"delay_seconds": round(event.delay_seconds, 1), "retry_at": timestamp(event.retry_at)}
    return _status(view.state, words, event="retry", **when, **_fields(event, "attempt", "reason", "dropped_text"))


Translation: TypeAlias = "Callable[[Any, SessionView], Body | None]"


def _told(name: str, words: str, *fields: str) -> Translation:
    """Return what tells of an event as a status of the session's state; ``words`` name fields of the event."""
    return lambda event, view: _status(view.state, words.format_map(vars(event)), event=name, **_fields(event, *fields))


_TRANSLATIONS: dict[type[events.Event], Translation] = {
    events.StatusChanged: _status_changed,
    events.UserMessage: lambda event, view: _status(
        "thinking", "Message received", event.metadata, event="user_message", **_message(event)
    ),
    events.MessageQueued: lambda event, view: _status(
        view.state, "Message queued", event.metadata, event="message_queued", queued=True, **_message(event)
    ),
    events.MessageDelivered: lambda event, view: _status(
        view.state,
        "Message delivered",
        event="message_delivered",
        **_message(event),
        **({"note": True} if event.note else {}),
    ),
    events.MessageWithdrawn: _told("message_withdrawn", "Message not delivered: {reason}", "message_id", "reason"),
    events.ApprovalRequested: lambda event, view: _status(
        "waiting_approval",
        f"Waiting for approval: {event.tool}",
        event="approval",
        **{**vars(event), "expires_at": timestamp(event.expires_at)},
    ),
    events.ApprovalDecided: _told("approval_decided", "Approval: {verdict}", "tool_use_id", "verdict", "by"),
    events.QuestionAsked: lambda event, view: _status(
        "waiting",
        f"Waiting for an answer: {event.question}",
        event="question",
        **{**vars(event), "expires_at": timestamp(event.expires_at)},
    ),
    events.QuestionAnswered: _told(
        "question_answered", "Question: {outcome}", "tool_use_id", "outcome", "answer", "by"
    ),
    events.ModelReplied: _model_replied,
    events.Retrying: _retrying,
    events.TextDelta: lambda event, view: _delta(event.text, kind="text"),
    events.ThinkingDelta: lambda event, view: _delta(event.text, kind="thinking"),
    events.ToolAnnounced: lambda event, view: _delta(
        "", kind="announce", tool=event.tool, tool_use_id=event.tool_use_id
    ),
    events.ToolStarted: _tool_execution,
    events.ToolFinished: _tool_execution,
    events.HumanInput: _told(
        "human_input", "{viewer} used the desktop", "viewer", "pointer_events", "key_events", "clipboard_events"
    ),
    events.ControlChanged: lambda event, view: _status(
        view.state, f"{event.viewer or 'The agent'} has the mouse", event="control", viewer=event.viewer
    ),
    events.PolicyChanged: _policy_changed,
    events.ConversationCleared: lambda event, view: _status(
        view.state, "History cleared", event="cleared", cleared_messages=event.messages
    ),
    events.TurnFinished: _turn_finished,
    events.TurnFailed: lambda event, view: {
        "type": "error",
        "error": event.error,
        "details": event.details,
        "metadata": _turn_metadata(event, view) | {"fatal": event.fatal},
    },
}
SESSIONS_ENDED = Counter("cambio_lab_sessions_ended_total", "Sessions ended", ["status"])
TURNS = Counter("cambio_lab_turns_total", "Turns by how they ended", ["result"])
TURN_SECONDS = Histogram(
    "cambio_lab_turn_seconds", "Wall time of a turn", buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
)
TOOL_CALLS = Counter("cambio_lab_tool_calls_total", "Tool calls", ["tool", "status"])
TOOL_SECONDS = Histogram(
    "cambio_lab_tool_seconds",
    "Where the time of tool calls goes",
    ["part"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 30),
)
MODEL_SECONDS = Histogram(
    "cambio_lab_model_seconds", "Time of one model reply", buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
)
TOKENS = Counter("cambio_lab_tokens_total", "Tokens by kind", ["kind"])
COST = Counter("cambio_lab_cost_usd_total", "Money spent on models, in US dollars")
RETRIES = Counter("cambio_lab_model_retries_total", "Waits for the model's service")
KNOWN_TOOLS = 64
"""Distinct names of tools with a label of their own; functions from notebooks beyond that share one."""
_tools: set[str] = set()


def _count(event: events.Event) -> None:
    """Count what a session does, for ``/metrics``."""
    match event:
        case events.ToolFinished():
            known = event.tool in _tools or len(_tools) < KNOWN_TOOLS
            _tools.add(tool := event.tool if known else "other")
            TOOL_CALLS.labels(tool, "failed" if event.is_error else "completed").inc()
            for part, milliseconds in asdict(event.timing).items():
                TOOL_SECONDS.labels(part).observe(milliseconds / 1000)
        case events.ModelReplied():
            MODEL_SECONDS.observe(event.model_ms / 1000)
            usage = event.usage.describe()
            COST.inc(max(0.0, usage.pop("cost_usd")))
            usage.pop("requests")
            for kind, count in usage.items():
                TOKENS.labels(kind.removesuffix("_tokens")).inc(count)
        case events.TurnFinished():
            TURNS.labels("stopped" if event.stopped else "limit" if event.limit else "finished").inc()
            TURN_SECONDS.observe(event.processing_time)
        case events.TurnFailed():
            TURNS.labels("failed").inc()
            TURN_SECONDS.observe(event.processing_time)
        case events.StatusChanged() if event.metadata.get("event") == "ended":
            SESSIONS_ENDED.labels(event.status).inc()
        case events.Retrying():
            RETRIES.inc()
