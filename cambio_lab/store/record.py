"""The record of a session: messages, events, tool calls, and its requests to the model with their replies."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from .database import Columns, Database, Operation, Page, execute, select
from .screenshots import name_screenshots

PAGE_CHARACTERS = 2_000_000
"""A page of events ends after this much of their text."""
StepStatus = Literal["started", "completed", "failed", "denied", "skipped", "interrupted"]
Role = Literal["user", "assistant"]
_SCREENSHOT = re.compile(r'"(?:image|sha256)":"([0-9a-f]{64})"')


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


_EVENT = Columns(EventRow, "events")
_STEP = Columns(StepRow, "steps", json=("arguments", "timing"))
_EXCHANGE = Columns(ExchangeRow, "exchanges", json=("headers",))


class EventTable:
    """The ``events`` table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def appending(self, rows: Sequence[EventRow]) -> Operation[None]:
        """Add events and move the session's two counters to the last of them."""
        return partial(_append_events, tuple(rows))

    async def append(self, rows: Sequence[EventRow]) -> None:
        await self._database.write(self.appending(rows))

    async def after(self, session_id: str, position: int, *, stream: bool, limit: int = 50) -> list[tuple[int, str]]:
        """Return ``(sequence, body)`` of what a reader sees after ``position``, in order.

        At most ``limit`` rows, and no more after :data:`PAGE_CHARACTERS`; one row at least if there is any.
        """
        return await self._database.read(partial(_after, session_id, position, stream, limit))

    async def records(self, session_id: str, *, kinds: Sequence[str] = ()) -> list[EventRow]:
        """Return all events but the pieces of text, in order; only ``kinds`` if given."""
        chosen = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        which = f"WHERE session_id = ? AND record IS NOT NULL{chosen} ORDER BY id"
        return await self._database.read(_EVENT.find(which, session_id, *kinds))


class StepTable:
    """The ``steps`` table; ``step`` counts a session's calls from 1."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def appending(self, row: StepRow) -> Operation[None]:
        """Write a call, or the end of one that was written before."""
        return partial(_append_step, row)

    def interrupting(self, session_id: str, time: float) -> Operation[int]:
        """Mark calls that never ended as ``interrupted``; the result is how many there were."""
        sql = "UPDATE steps SET status = 'interrupted', ended_at = ? WHERE session_id = ? AND status = 'started'"
        return execute(sql, time, session_id)

    async def of(self, session_id: str, *, after: int = 0, limit: int = 1_000_000) -> list[StepRow]:
        """Return the session's calls in order, from the one after step ``after``."""
        which = "WHERE session_id = ? AND step > ? ORDER BY step LIMIT ?"
        return await self._database.read(_STEP.find(which, session_id, after, limit))


class ExchangeTable:
    """The ``exchanges`` table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def appending(self, row: ExchangeRow, screenshots: Sequence[str] = ()) -> Operation[None]:
        """Write an exchange, or complete one that was written before its reply had ended.

        ``screenshots`` are the digests that the request refers to and the one before it does not.
        """
        return partial(_append_exchange, row, tuple(screenshots))

    async def of(self, session_id: str) -> list[ExchangeRow]:
        return await self._database.read(_EXCHANGE.find("WHERE session_id = ? ORDER BY number", session_id))

    async def count(self, session_id: str) -> int:
        """Return the highest number so far; 0 when there is none."""
        sql = "SELECT coalesce(max(number), 0) FROM exchanges WHERE session_id = ?"
        [(highest,)] = await self._database.read(select(sql, session_id))
        return int(highest)


def _append_events(rows: tuple[EventRow, ...], connection: sqlite3.Connection) -> None:
    connection.executemany(_EVENT.insert, map(_EVENT.encode, rows))
    last: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        plain, stream, size = last.get(row.session_id, (0, 0, 0))
        size += len(row.body or "") + len(row.record or "")
        last[row.session_id] = (row.sequence or plain, row.stream_sequence or stream, size)
        name_screenshots(row.session_id, _SCREENSHOT.findall(row.record or ""), connection)
    connection.executemany(
        "UPDATE sessions SET last_sequence = max(last_sequence, ?), last_stream_sequence ="
        " max(last_stream_sequence, ?), record_bytes = record_bytes + ? WHERE id = ?",
        [(*numbers, session_id) for session_id, numbers in last.items()],
    )


def _after(
    session_id: str, position: int, stream: bool, limit: int, connection: sqlite3.Connection
) -> list[tuple[int, str]]:
    counter = "stream_sequence" if stream else "sequence"
    sql = f"SELECT {counter}, body FROM events WHERE session_id = ? AND {counter} > ? ORDER BY {counter} LIMIT ?"
    found: list[tuple[int, str]] = []
    size = 0
    for row in connection.execute(sql, (session_id, position, limit)):
        found.append(row)
        size += len(row[1])
        if size >= PAGE_CHARACTERS:
            break
    return found


def _append_step(row: StepRow, connection: sqlite3.Connection) -> None:
    kept = ("status", "ended_at", "text", "timing", "sha256", "media_type", "width", "height")
    connection.execute(
        f"{_STEP.insert} ON CONFLICT (session_id, step) DO UPDATE SET"
        f" {', '.join(f'{name} = excluded.{name}' for name in kept)}",
        _STEP.encode(row),
    )
    connection.execute(
        "UPDATE steps SET sequence = (SELECT last_sequence FROM sessions WHERE id = session_id)"
        " WHERE session_id = ? AND step = ? AND sequence IS NULL",
        (row.session_id, row.step),
    )
    name_screenshots(row.session_id, [row.sha256] if row.sha256 else [], connection)


def _append_exchange(row: ExchangeRow, screenshots: tuple[str, ...], connection: sqlite3.Connection) -> None:
    connection.execute(_EXCHANGE.insert.replace("INSERT", "INSERT OR REPLACE", 1), _EXCHANGE.encode(row))
    connection.execute(
        "UPDATE sessions SET record_bytes = record_bytes + ? WHERE id = ?",
        (len(row.request) + len(row.response), row.session_id),
    )
    name_screenshots(row.session_id, screenshots, connection)


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
        return partial(_append_message, row)

    async def page(self, session_id: str, query: MessageQuery) -> Page[MessageRow]:
        """Oldest first unless the query says otherwise; messages that arrive meanwhile move no row of a page."""
        return await self._database.read(partial(_page, session_id, query))

    def clearing(self, session_id: str) -> Operation[int]:
        """Remove the session's messages; the result is how many there were."""
        return partial(_clear_messages, session_id)


def new_message_id() -> str:
    return f"msg-{uuid.uuid4()}"


_MESSAGE = Columns(MessageRow, "messages", json=("metadata",))


def _append_message(row: MessageRow, connection: sqlite3.Connection) -> MessageRow:
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
    row = replace(row, created_at=time, position=position, sequence=sequence)
    sql = f"INSERT INTO messages ({_MESSAGE.columns}, role_position) VALUES ({_MESSAGE.marks}, ?)"
    connection.execute(sql, (*_MESSAGE.encode(row), role_position))
    return row


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
    which = f"WHERE {scope} AND {place} BETWEEN ? AND ? ORDER BY {place} {order}"
    return Page(_MESSAGE.find(which, *values, low, high)(connection), total)


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


def _clear_messages(session_id: str, connection: sqlite3.Connection) -> int:
    removed = connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,)).rowcount
    connection.execute(
        "UPDATE sessions SET message_count = 0, user_count = 0, assistant_count = 0 WHERE id = ?", (session_id,)
    )
    return removed
