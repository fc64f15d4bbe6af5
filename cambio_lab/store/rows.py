"""What is stored, as objects: sessions and messages with their pages, events, tool calls and requests to the model."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal

from cambio_lab.events import Usage, timestamp

from .database import Columns, Row

SessionStatus = Literal["active", "inactive", "error"]
Role = Literal["user", "assistant"]
StepStatus = Literal["started", "completed", "failed", "denied", "skipped", "interrupted"]
SORT_KEYS = frozenset({"created_at", "ended_at", "id", "name", "status", "model", "steps"})
"""What a listing may be sorted by."""
_AS_THEY_ARE = ("id", "name", "status", "end_reason", "container_id", "model", "config", "steps", "tags", "note")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows and how many there are in all that match."""

    rows: list[Row]
    total: int


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One session. Times are seconds since the epoch; ``turn_message_id`` names the message being worked on."""

    id: str
    name: str
    status: SessionStatus
    created_at: float
    config: dict[str, Any]
    model: str = ""
    desktop_kind: str = ""
    desktop_id: str | None = None
    container_id: str | None = None
    vnc_port: int | None = None
    ended_at: float | None = None
    end_reason: str | None = None
    steps: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    turn_message_id: str | None = None
    user_messages: int = 0
    """Messages ever sent; clearing the history does not lower it."""
    last_sequence: int = 0
    last_stream_sequence: int = 0
    message_count: int = 0
    """Messages in the history now."""
    record_bytes: int = 0
    """About how much its record takes on disk, screenshots included."""
    pinned: bool = False
    """Kept when the oldest runs are removed to make space."""
    tags: list[str] = field(default_factory=list)
    note: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the body of ``GET /sessions/{id}`` for a session that is not live."""
        body = {name: getattr(self, name) for name in _AS_THEY_ARE}
        return body | {
            "state": "error" if self.status == "error" else "ended",
            "created_at": timestamp(self.created_at),
            "ended_at": None if self.ended_at is None else timestamp(self.ended_at),
            "vnc_port": None,
            "desktop": self.desktop_kind,
            "usage": Usage(**self.usage).describe(),
            "record_bytes": self.record_bytes,
            "pinned": bool(self.pinned),
            "control": None,
            "sequence": self.last_sequence,
        }


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """Which sessions, in which order. ``created_after`` and ``created_before`` are exclusive, in epoch seconds.

    ``sort`` is a list of ``(key of SORT_KEYS, ascending)``; rows that tie are listed newest first.
    """

    status: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    sort: Sequence[tuple[str, bool]] = (("created_at", False),)
    limit: int = 50
    offset: int = 0

    def page(self, connection: sqlite3.Connection) -> Page[SessionRow]:
        """Return the rows, and how many there are on all pages."""
        if unknown := [key for key, _ in self.sort if key not in SORT_KEYS]:
            raise ValueError(f"cannot sort by {', '.join(unknown)}")
        asked = {"status = ?": self.status, "created_at > ?": self.created_after, "created_at < ?": self.created_before}
        asked = {condition: value for condition, value in asked.items() if value is not None}
        where = f" WHERE {' AND '.join(asked)}" if asked else ""
        order = [f"{key} {'ASC' if ascending else 'DESC'}" for key, ascending in self.sort]
        last = "ASC" if self.sort and self.sort[-1][1] else "DESC"  # an index is read one way
        which = f"{where} ORDER BY {', '.join([*order, f'number {last}'])} LIMIT ? OFFSET ?"
        rows = SESSION.find(which, *asked.values(), self.limit, self.offset)(connection)
        if self.created_after is None and self.created_before is None:  # rows need not be counted
            total = f"SELECT coalesce(sum(sessions), 0) FROM session_counts{where}"
        else:
            total = f"SELECT count(*) FROM sessions{where}"
        return Page(rows, connection.execute(total, tuple(asked.values())).fetchone()[0])


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One message. ``created_at`` is in epoch seconds and never goes back within a session."""

    id: str
    session_id: str
    role: Role
    content: str
    created_at: float
    metadata: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    sequence: int | None = None
    """The number of the event that told of it; ``None`` in records of older versions."""


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Which messages of a session. Times are exclusive, in epoch seconds."""

    role: Role | None = None
    created_after: float | None = None
    created_before: float | None = None
    newest_first: bool = False
    limit: int = 100
    offset: int = 0

    def page(self, session_id: str, connection: sqlite3.Connection) -> Page[MessageRow]:
        """Return the rows, and how many there are on all pages.

        Times never go back within a session, so a span of time is a span of positions.
        """
        place, counter = ("role_position", f"{self.role}_count") if self.role else ("position", "message_count")
        scope, values = (
            ("session_id = ? AND role = ?", [session_id, self.role]) if self.role else ("session_id = ?", [session_id])
        )
        found = connection.execute(f"SELECT {counter} FROM sessions WHERE id = ?", (session_id,)).fetchone()
        first, last = 1, found[0] if found else 0

        def at(position: str, time: str, limit: float) -> int | None:
            sql = f"SELECT {position}({place}) FROM messages WHERE {scope} AND created_at ="
            sql += f" (SELECT {position}(created_at) FROM messages WHERE {scope} AND created_at {time} ?)"
            edge: int | None = connection.execute(sql, (*values, *values, limit)).fetchone()[0]
            return edge

        if self.created_after is not None:
            first = (at("max", "<=", self.created_after) or 0) + 1
        if self.created_before is not None and (after := at("min", ">=", self.created_before)) is not None:
            last = after - 1
        if self.newest_first:
            high = last - self.offset
            low, order = max(first, high - self.limit + 1), "DESC"
        else:
            low = first + self.offset
            high, order = min(last, low + self.limit - 1), "ASC"
        which = f"WHERE {scope} AND {place} BETWEEN ? AND ? ORDER BY {place} {order}"
        return Page(MESSAGE.find(which, *values, low, high)(connection), max(0, last - first + 1))


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event. ``kind`` is the name of its class in :mod:`cambio_lab.events`, ``time`` is in epoch seconds.

    ``body`` is the JSON that sockets are sent, without a sequence; ``None`` when sockets do not show the event.
    ``sequence`` is ``None`` for what only readers with ``?stream=true`` see, both are for what no reader sees.
    ``record`` is the event's own fields as JSON, screenshots by digest; ``None`` for pieces of text.
    """

    session_id: str
    sequence: int | None
    stream_sequence: int | None
    time: float
    kind: str
    body: str | None
    record: str | None = None


@dataclass(frozen=True, slots=True)
class StepRow:
    """One tool call. Times are epoch seconds; ``timing`` has ``action``, ``settle``, ``encode``, ``total`` in ms.

    ``sha256`` names the screenshot that the model saw, if any. What a reply of the model ``said`` and cost (US
    dollars) stands with the first call that it made. ``sequence`` is the number of the event that told of its begin.
    """

    session_id: str
    step: int
    tool_use_id: str
    tool: str
    toolset: str | None
    arguments: dict[str, Any]
    status: StepStatus
    started_at: float
    ended_at: float | None = None
    text: str = ""
    timing: dict[str, float] = field(default_factory=dict)
    sha256: str | None = None
    media_type: str | None = None
    width: int = 0
    height: int = 0
    said: str = ""
    cost_usd: float | None = None
    sequence: int | None = None
    actor: str = "agent"
    """``human``: a person did it with mouse or keyboard."""


@dataclass(frozen=True, slots=True)
class ExchangeRow:
    """One HTTP exchange. ``number`` counts a session's attempts from 1.

    ``request`` is what is needed to rebuild the body whose digest is ``request_sha256``; ``headers`` are the
    reply's. ``status`` is ``None`` when no reply came, ``error`` then names the failure in a word.
    """

    session_id: str
    number: int
    started_at: float
    request_sha256: str
    request: bytes
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    response: bytes = b""
    first_byte_ms: float | None = None
    total_ms: float | None = None
    error: str | None = None


SESSION = Columns(SessionRow, "sessions", json=("config", "usage", "tags"))
MESSAGE = Columns(MessageRow, "messages", json=("metadata",))
EVENT = Columns(EventRow, "events")
STEP = Columns(StepRow, "steps", json=("arguments", "timing"))
EXCHANGE = Columns(ExchangeRow, "exchanges", json=("headers",))
