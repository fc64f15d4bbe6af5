"""Sessions and their messages: what a listing and people read, and what the next start of the server needs."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal

from cambio_lab.events import Usage, timestamp

from .database import Columns, Operation, Row, Table, dump, execute, select

SessionStatus = Literal["active", "inactive", "error"]
Role = Literal["user", "assistant"]
SORT_KEYS = frozenset({"created_at", "ended_at", "id", "name", "status", "model", "steps"})
"""What a listing may be sorted by."""


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
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "state": "error" if self.status == "error" else "ended",
            "created_at": timestamp(self.created_at),
            "ended_at": None if self.ended_at is None else timestamp(self.ended_at),
            "end_reason": self.end_reason,
            "container_id": self.container_id,
            "vnc_port": None,
            "desktop": self.desktop_kind,
            "model": self.model,
            "config": self.config,
            "steps": self.steps,
            "usage": Usage(**self.usage).describe(),
            "record_bytes": self.record_bytes,
            "pinned": bool(self.pinned),
            "tags": self.tags,
            "note": self.note,
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


class SessionTable(Table):
    """The ``sessions`` table."""

    async def insert(self, row: SessionRow) -> None:
        await self._database.write(self.inserting(row))

    def inserting(self, row: SessionRow) -> Operation[int]:
        return execute(_SESSION.insert, *_SESSION.encode(row))

    async def update(self, session_id: str, **changes: Any) -> None:
        """Change the named columns; an unknown column is a ``KeyError``."""
        await self._database.write(self.updating(session_id, **changes))

    def updating(self, session_id: str, **changes: Any) -> Operation[int]:
        if unknown := changes.keys() - set(_SESSION.names):
            raise KeyError(f"sessions has no column {sorted(unknown)}")
        values = [dump(value) if name in _SESSION.json else value for name, value in changes.items()]
        sql = f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in changes)} WHERE id = ?"
        return execute(sql, *values, session_id)

    def growing(self, session_id: str, size: int) -> Operation[int]:
        """Add ``size`` bytes to what the session's record takes; the new total (0 for an unknown session)."""
        sql = "UPDATE sessions SET record_bytes = record_bytes + ? WHERE id = ? RETURNING record_bytes"

        def operation(connection: sqlite3.Connection) -> int:
            found = connection.execute(sql, (size, session_id)).fetchall()
            return int(found[0][0]) if found else 0

        return operation

    async def get(self, session_id: str) -> SessionRow | None:
        found = await self._database.read(_SESSION.find("WHERE id = ?", session_id), snapshot=False)
        return found[0] if found else None

    async def live(self) -> list[SessionRow]:
        """Sessions whose status is ``active``, oldest first: after a crash, those to adopt."""
        return await self._database.read(_SESSION.find("WHERE status = 'active' ORDER BY created_at, number"))

    async def removable(self) -> list[tuple[str, float]]:
        """Return ``(id, when it ended)`` of every session that has ended and is not pinned, the oldest first."""
        sql = "SELECT id, coalesce(ended_at, created_at) AS ended FROM sessions WHERE status <> 'active' AND NOT pinned"
        return await self._database.read(select(f"{sql} ORDER BY ended, number"), snapshot=False)

    async def page(self, query: SessionQuery) -> Page[SessionRow]:
        """Newest first unless ``query.sort`` says otherwise; ``ValueError`` for a key that cannot be sorted by."""
        if unknown := [key for key, _ in query.sort if key not in SORT_KEYS]:
            raise ValueError(f"cannot sort by {', '.join(unknown)}")
        return await self._database.read(partial(_page_of_sessions, query))

    async def remove(self, session_id: str) -> None:
        """Forget an ended session: its row, history and record (``screenshots.sweep`` removes the files)."""

        def operation(connection: sqlite3.Connection) -> None:
            for table in ("messages", "transcript", "steps", "events", "exchanges", "session_screenshots"):
                connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))
            connection.execute("DELETE FROM sessions WHERE id = ? AND status <> 'active'", (session_id,))

        await self._database.write(operation)


_SESSION = Columns(SessionRow, "sessions", json=("config", "usage", "tags"))


def _page_of_sessions(query: SessionQuery, connection: sqlite3.Connection) -> Page[SessionRow]:
    possible = {
        "status = ?": query.status,
        "created_at > ?": query.created_after,
        "created_at < ?": query.created_before,
    }
    asked = {condition: value for condition, value in possible.items() if value is not None}
    where = f" WHERE {' AND '.join(asked)}" if asked else ""
    order = [f"{key} {'ASC' if ascending else 'DESC'}" for key, ascending in query.sort]
    last = "ASC" if query.sort and query.sort[-1][1] else "DESC"  # an index is read one way
    which = f"{where} ORDER BY {', '.join([*order, f'number {last}'])} LIMIT ? OFFSET ?"
    rows = _SESSION.find(which, *asked.values(), query.limit, query.offset)(connection)
    if query.created_after is None and query.created_before is None:  # rows need not be counted
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


class MessageTable(Table):
    """The ``messages`` table. A page costs the same wherever it lies: positions are ranges of an index."""

    async def append(
        self, session_id: str, role: Role, content: str, metadata: Mapping[str, Any] | None = None, *, time: float
    ) -> MessageRow:
        """Add a message at the end; on disk when this returns."""
        return await self._database.write(self.appending(new_message_id(), session_id, role, content, metadata, time))

    def appending(
        self,
        message_id: str,
        session_id: str,
        role: Role,
        content: str,
        metadata: Mapping[str, Any] | None,
        time: float,
    ) -> Operation[MessageRow]:
        kept = dict(metadata or {})

        def operation(connection: sqlite3.Connection) -> MessageRow:
            counts = connection.execute(
                f"UPDATE sessions SET message_count = message_count + 1, {role}_count = {role}_count + 1"
                f" WHERE id = ? RETURNING message_count, {role}_count, last_sequence",
                (session_id,),
            ).fetchall()
            if not counts:
                raise ValueError(f"no session {session_id}")
            position, role_position, sequence = counts[0]
            sql = "SELECT created_at FROM messages WHERE session_id = ? AND position = ?"
            before = connection.execute(sql, (session_id, position - 1)).fetchone() or (time,)
            created_at = max(time, before[0])  # the clock may have been set back
            row = MessageRow(message_id, session_id, role, content, created_at, kept, position, sequence)
            sql = f"INSERT INTO messages ({_MESSAGE.columns}, role_position) VALUES ({_MESSAGE.marks}, ?)"
            connection.execute(sql, (*_MESSAGE.encode(row), role_position))
            return row

        return operation

    async def page(self, session_id: str, query: MessageQuery) -> Page[MessageRow]:
        """Oldest first unless the query says otherwise; messages that arrive meanwhile move no row of a page."""
        return await self._database.read(partial(_page_of_messages, session_id, query))

    def clearing(self, session_id: str) -> Operation[int]:
        """Remove the session's messages; the result is how many there were."""

        def operation(connection: sqlite3.Connection) -> int:
            sql = "UPDATE sessions SET message_count = 0, user_count = 0, assistant_count = 0 WHERE id = ?"
            connection.execute(sql, (session_id,))
            return connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,)).rowcount

        return operation


_MESSAGE = Columns(MessageRow, "messages", json=("metadata",))


def new_message_id() -> str:
    return f"msg-{uuid.uuid4()}"


def _page_of_messages(session_id: str, query: MessageQuery, connection: sqlite3.Connection) -> Page[MessageRow]:
    """Times never go back, so a span of time is a span of positions."""
    place, counter = ("role_position", f"{query.role}_count") if query.role else ("position", "message_count")
    scope, values = (
        ("session_id = ? AND role = ?", [session_id, query.role]) if query.role else ("session_id = ?", [session_id])
    )
    found = connection.execute(f"SELECT {counter} FROM sessions WHERE id = ?", (session_id,)).fetchone()
    first, last = 1, found[0] if found else 0

    def at(position: str, time: str, limit: float) -> int | None:
        sql = f"SELECT {position}({place}) FROM messages WHERE {scope} AND created_at ="
        sql += f" (SELECT {position}(created_at) FROM messages WHERE {scope} AND created_at {time} ?)"
        edge: int | None = connection.execute(sql, (*values, *values, limit)).fetchone()[0]
        return edge

    if query.created_after is not None:
        first = (at("max", "<=", query.created_after) or 0) + 1
    if query.created_before is not None and (after := at("min", ">=", query.created_before)) is not None:
        last = after - 1
    if query.newest_first:
        high = last - query.offset
        low, order = max(first, high - query.limit + 1), "DESC"
    else:
        low = first + query.offset
        high, order = min(last, low + query.limit - 1), "ASC"
    which = f"WHERE {scope} AND {place} BETWEEN ? AND ? ORDER BY {place} {order}"
    return Page(_MESSAGE.find(which, *values, low, high)(connection), max(0, last - first + 1))
