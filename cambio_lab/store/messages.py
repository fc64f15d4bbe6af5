"""What people read: the user's messages and the agent's answers, in order, in pages of any depth."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from .database import Database, Operation
from .sessions import Page

Role = Literal["user", "assistant"]


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


class MessageTable:
    """The ``messages`` table. A page costs the same wherever it lies: positions are ranges of an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        row = MessageRow(message_id, session_id, role, content, time, dict(metadata or {}))
        return partial(_append, row)

    async def page(self, session_id: str, query: MessageQuery) -> Page[MessageRow]:
        """Oldest first unless the query says otherwise; messages that arrive meanwhile move no row of a page."""
        return await self._database.read(partial(_page, session_id, query))

    async def clear(self, session_id: str) -> int:
        """Remove the session's messages; how many there were."""
        return await self._database.write(self.clearing(session_id))

    def clearing(self, session_id: str) -> Operation[int]:
        return partial(_clear, session_id)


def new_message_id() -> str:
    return f"msg-{uuid.uuid4()}"


_COLUMNS = "id, session_id, role, content, created_at, metadata, position, sequence"


def _decode(row: tuple[Any, ...]) -> MessageRow:
    values = list(row)
    values[5] = json.loads(values[5])
    return MessageRow(*values)


def _append(row: MessageRow, connection: sqlite3.Connection) -> MessageRow:
    counts = connection.execute(
        f"UPDATE sessions SET message_count = message_count + 1, {row.role}_count = {row.role}_count + 1"
        f" WHERE id = ? RETURNING message_count, {row.role}_count, last_sequence",
        (row.session_id,),
    ).fetchall()
    if not counts:
        raise ValueError(f"no session {row.session_id}")
    position, role_position, sequence = counts[0]
    before = connection.execute(
        "SELECT created_at FROM messages WHERE session_id = ? AND position = ?", (row.session_id, position - 1)
    ).fetchone()
    time = max(row.created_at, before[0]) if before else row.created_at  # the clock may have been set back
    metadata = json.dumps(row.metadata, separators=(",", ":"), ensure_ascii=False)
    connection.execute(
        "INSERT INTO messages (id, session_id, position, role, role_position, content, created_at, metadata,"
        " sequence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.session_id, position, row.role, role_position, row.content, time, metadata, sequence),
    )
    return MessageRow(row.id, row.session_id, row.role, row.content, time, row.metadata, position, sequence)


def _page(session_id: str, query: MessageQuery, connection: sqlite3.Connection) -> Page[MessageRow]:
    place = "role_position" if query.role else "position"
    scope, values = (
        ("session_id = ? AND role = ?", (session_id, query.role)) if query.role else ("session_id = ?", (session_id,))
    )
    first, last = _bounds(session_id, query, place, scope, values, connection)
    total = max(0, last - first + 1)
    if query.newest_first:
        high = last - query.offset
        low, order = max(first, high - query.limit + 1), "DESC"
    else:
        low = first + query.offset
        high, order = min(last, low + query.limit - 1), "ASC"
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM messages WHERE {scope} AND {place} BETWEEN ? AND ? ORDER BY {place} {order}",
        (*values, low, high),
    )
    return Page([_decode(row) for row in found], total)


def _bounds(
    session_id: str,
    query: MessageQuery,
    place: str,
    scope: str,
    values: tuple[Any, ...],
    connection: sqlite3.Connection,
) -> tuple[int, int]:
    """First and last position that match: times never go back, so a span of time is a span of positions."""
    counter = f"{query.role}_count" if query.role else "message_count"
    found = connection.execute(f"SELECT {counter} FROM sessions WHERE id = ?", (session_id,)).fetchone()
    first, last = 1, found[0] if found else 0
    if query.created_after is not None:
        sql = f"SELECT max({place}) FROM messages WHERE {scope} AND created_at = ("
        sql += f"SELECT max(created_at) FROM messages WHERE {scope} AND created_at <= ?)"
        (before,) = connection.execute(sql, (*values, *values, query.created_after)).fetchone()
        first = (before or 0) + 1
    if query.created_before is not None:
        sql = f"SELECT min({place}) FROM messages WHERE {scope} AND created_at = ("
        sql += f"SELECT min(created_at) FROM messages WHERE {scope} AND created_at >= ?)"
        (after,) = connection.execute(sql, (*values, *values, query.created_before)).fetchone()
        last = last if after is None else after - 1
    return first, last


def _clear(session_id: str, connection: sqlite3.Connection) -> int:
    removed = connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,)).rowcount
    connection.execute(
        "UPDATE sessions SET message_count = 0, user_count = 0, assistant_count = 0 WHERE id = ?", (session_id,)
    )
    return removed
