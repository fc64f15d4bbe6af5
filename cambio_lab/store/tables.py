"""The tables: sessions and their messages, and the record of each: events, tool calls, requests to the model.

Messages are what people read; the conversation as the model is sent it is in :mod:`.screenshots`.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from .database import Operation, Table, dump, execute, select
from .rows import (
    EVENT,
    EXCHANGE,
    MESSAGE,
    SESSION,
    STEP,
    EventRow,
    ExchangeRow,
    MessageQuery,
    MessageRow,
    Page,
    Role,
    SessionQuery,
    SessionRow,
    StepRow,
)
from .screenshots import name_screenshots

PAGE_CHARACTERS = 2_000_000
"""A page of events ends after this much of their text."""
_SCREENSHOT = re.compile(r'"(?:image|sha256)":"([0-9a-f]{64})"')
_CHANGES_AT_END = ("status", "ended_at", "text", "timing", "sha256", "media_type", "width", "height")


def new_message_id() -> str:
    return f"msg-{uuid.uuid4()}"


class SessionTable(Table):
    """The ``sessions`` table."""

    async def insert(self, row: SessionRow) -> None:
        await self._database.write(self.inserting(row))

    def inserting(self, row: SessionRow) -> Operation[int]:
        return execute(SESSION.insert, *SESSION.encode(row))

    async def update(self, session_id: str, **changes: Any) -> None:
        """Change the named columns; an unknown column is a ``KeyError``."""
        await self._database.write(self.updating(session_id, **changes))

    def updating(self, session_id: str, **changes: Any) -> Operation[int]:
        if unknown := changes.keys() - set(SESSION.names):
            raise KeyError(f"sessions has no column {sorted(unknown)}")
        values = [dump(value) if name in SESSION.json else value for name, value in changes.items()]
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
        found = await self._database.read(SESSION.find("WHERE id = ?", session_id))
        return found[0] if found else None

    async def live(self) -> list[SessionRow]:
        """Sessions whose status is ``active``, oldest first: after a crash, those to adopt."""
        return await self._database.read(SESSION.find("WHERE status = 'active' ORDER BY created_at, number"))

    async def removable(self) -> list[tuple[str, float]]:
        """Return ``(id, when it ended)`` of every session that has ended and is not pinned, the oldest first."""
        sql = "SELECT id, coalesce(ended_at, created_at) AS ended FROM sessions WHERE status <> 'active' AND NOT pinned"
        return await self._database.read(select(f"{sql} ORDER BY ended, number"))

    async def page(self, query: SessionQuery) -> Page[SessionRow]:
        """Newest first unless ``query.sort`` says otherwise; ``ValueError`` for a key that cannot be sorted by."""
        return await self._database.read(query.page)

    async def remove(self, session_id: str) -> None:
        """Forget an ended session: its row, history and record (``screenshots.sweep`` removes the files)."""

        def operation(connection: sqlite3.Connection) -> None:
            for table in ("messages", "transcript", "steps", "events", "exchanges", "session_screenshots"):
                connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))
            connection.execute("DELETE FROM sessions WHERE id = ? AND status <> 'active'", (session_id,))

        await self._database.write(operation)


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
            sql = f"INSERT INTO messages ({MESSAGE.columns}, role_position) VALUES ({MESSAGE.marks}, ?)"
            connection.execute(sql, (*MESSAGE.encode(row), role_position))
            return row

        return operation

    async def page(self, session_id: str, query: MessageQuery) -> Page[MessageRow]:
        """Oldest first unless the query says otherwise; messages that arrive meanwhile move no row of a page."""
        return await self._database.read(partial(query.page, session_id))

    def clearing(self, session_id: str) -> Operation[int]:
        """Remove the session's messages; the result is how many there were."""

        def operation(connection: sqlite3.Connection) -> int:
            sql = "UPDATE sessions SET message_count = 0, user_count = 0, assistant_count = 0 WHERE id = ?"
            connection.execute(sql, (session_id,))
            return connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,)).rowcount

        return operation


class EventTable(Table):
    """The ``events`` table."""

    def appending(self, rows: Sequence[EventRow]) -> Operation[None]:
        """Add events and move the session's two counters to the last of them."""

        kept = tuple(rows)

        def operation(connection: sqlite3.Connection) -> None:
            for row in kept:
                body, record = row.body or "", row.record or ""
                connection.execute(EVENT.insert, EVENT.encode(row))
                connection.execute(
                    "UPDATE sessions SET last_sequence = max(last_sequence, ?), last_stream_sequence ="
                    " max(last_stream_sequence, ?), record_bytes = record_bytes + ? WHERE id = ?",
                    (row.sequence or 0, row.stream_sequence or 0, len(body) + len(record), row.session_id),
                )
                name_screenshots(row.session_id, _SCREENSHOT.findall(record), connection)

        return operation

    async def append(self, rows: Sequence[EventRow]) -> None:
        await self._database.write(self.appending(rows))

    async def after(self, session_id: str, position: int, *, stream: bool, limit: int = 50) -> list[tuple[int, str]]:
        """Return ``(sequence, body)`` of what a reader sees after ``position``, in order.

        At most ``limit`` rows, and no more after :data:`PAGE_CHARACTERS`; one row at least if there is any.
        """
        counter = "stream_sequence" if stream else "sequence"
        sql = f"SELECT {counter}, body FROM events WHERE session_id = ? AND {counter} > ? ORDER BY {counter} LIMIT ?"

        def operation(connection: sqlite3.Connection) -> list[tuple[int, str]]:
            found: list[tuple[int, str]] = []
            size = 0
            for row in connection.execute(sql, (session_id, position, limit)):
                found.append(row)
                size += len(row[1])
                if size >= PAGE_CHARACTERS:
                    break
            return found

        return await self._database.read(operation)

    async def records(self, session_id: str, *, kinds: Sequence[str] = ()) -> list[EventRow]:
        """Return all events but the pieces of text, in order; only ``kinds`` if given."""
        chosen = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        which = f"WHERE session_id = ? AND record IS NOT NULL{chosen} ORDER BY id"
        return await self._database.read(EVENT.find(which, session_id, *kinds))


class StepTable(Table):
    """The ``steps`` table; ``step`` counts a session's calls from 1."""

    def appending(self, row: StepRow) -> Operation[None]:
        """Write a call, or the end of one that was written before."""

        def operation(connection: sqlite3.Connection) -> None:
            changes = ", ".join(f"{name} = excluded.{name}" for name in _CHANGES_AT_END)
            sql = f"{STEP.insert} ON CONFLICT (session_id, step) DO UPDATE SET {changes}"
            connection.execute(sql, STEP.encode(row))
            connection.execute(
                "UPDATE steps SET sequence = (SELECT last_sequence FROM sessions WHERE id = session_id)"
                " WHERE session_id = ? AND step = ? AND sequence IS NULL",
                (row.session_id, row.step),
            )
            name_screenshots(row.session_id, [row.sha256] if row.sha256 else [], connection)

        return operation

    def interrupting(self, session_id: str, time: float) -> Operation[int]:
        """Mark calls that never ended as ``interrupted``; the result is how many there were."""
        sql = "UPDATE steps SET status = 'interrupted', ended_at = ? WHERE session_id = ? AND status = 'started'"
        return execute(sql, time, session_id)

    async def of(self, session_id: str, *, after: int = 0, limit: int = 1_000_000) -> list[StepRow]:
        """Return the session's calls in order, from the one after step ``after``."""
        which = "WHERE session_id = ? AND step > ? ORDER BY step LIMIT ?"
        return await self._database.read(STEP.find(which, session_id, after, limit))


class ExchangeTable(Table):
    """The ``exchanges`` table."""

    def appending(self, row: ExchangeRow, screenshots: Sequence[str] = ()) -> Operation[None]:
        """Write an exchange, or complete one that was written before its reply had ended.

        ``screenshots`` are the digests that the request refers to and the one before it does not.
        """

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(EXCHANGE.insert.replace("INSERT", "INSERT OR REPLACE", 1), EXCHANGE.encode(row))
            connection.execute(
                "UPDATE sessions SET record_bytes = record_bytes + ? WHERE id = ?",
                (len(row.request) + len(row.response), row.session_id),
            )
            name_screenshots(row.session_id, screenshots, connection)

        return operation

    async def of(self, session_id: str) -> list[ExchangeRow]:
        return await self._database.read(EXCHANGE.find("WHERE session_id = ? ORDER BY number", session_id))

    async def count(self, session_id: str) -> int:
        """Return the highest number so far; 0 when there is none."""
        sql = "SELECT coalesce(max(number), 0) FROM exchanges WHERE session_id = ?"
        [(highest,)] = await self._database.read(select(sql, session_id))
        return int(highest)
