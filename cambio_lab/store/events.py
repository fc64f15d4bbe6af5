"""What happened in a session, in order: what its sockets were sent, and the particulars a record needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .database import Database, Operation

PAGE_CHARACTERS = 2_000_000


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event. ``kind`` is the name of its class in :mod:`cambio_lab.events`, ``time`` is in epoch seconds.

    ``body`` is the JSON a socket was sent, without its sequence; ``None`` when no socket shows the event.
    ``sequence`` is ``None`` for what only readers with ``?stream=true`` see, both are when nobody does.
    ``record`` is the event's own fields as JSON, pictures by digest; ``None`` for pieces of text.
    """

    session_id: str
    sequence: int | None
    stream_sequence: int | None
    time: float
    kind: str
    body: str | None
    record: str | None = None
    id: int = 0


class EventTable:
    """The ``events`` table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def appending(self, rows: Sequence[EventRow]) -> Operation[None]:
        """Add events and move the session's two counters to the last of them."""
        return partial(_append, tuple(rows))

    async def append(self, rows: Sequence[EventRow]) -> None:
        await self._database.write(self.appending(rows))

    async def after(self, session_id: str, position: int, *, stream: bool, limit: int = 50) -> list[tuple[int, str]]:
        """Return ``(sequence, body)`` of what a reader sees after ``position``, in order.

        At most ``limit`` rows, and no more after :data:`PAGE_CHARACTERS`; one row at least if there is any.
        """
        return await self._database.read(partial(_after, session_id, position, stream, limit))

    async def records(
        self, session_id: str, *, kinds: Sequence[str] = (), after_id: int = 0, limit: int = 1_000_000
    ) -> list[EventRow]:
        """The whole story but the pieces of text, in order; only ``kinds`` if given."""
        return await self._database.read(partial(_records, session_id, tuple(kinds), after_id, limit))


_COLUMNS = "session_id, sequence, stream_sequence, time, kind, body, record"


def _append(rows: tuple[EventRow, ...], connection: sqlite3.Connection) -> None:
    connection.executemany(
        f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(r.session_id, r.sequence, r.stream_sequence, r.time, r.kind, r.body, r.record) for r in rows],
    )
    last: dict[str, tuple[int, int, int]] = {}
    for row in rows:
        plain, stream, size = last.get(row.session_id, (0, 0, 0))
        size += len(row.body or "") + len(row.record or "")
        last[row.session_id] = (row.sequence or plain, row.stream_sequence or stream, size)
    connection.executemany(
        "UPDATE sessions SET last_sequence = max(last_sequence, ?), last_stream_sequence ="
        " max(last_stream_sequence, ?), record_bytes = record_bytes + ? WHERE id = ?",
        [(*numbers, session_id) for session_id, numbers in last.items()],
    )


def _after(
    session_id: str, position: int, stream: bool, limit: int, connection: sqlite3.Connection
) -> list[tuple[int, str]]:
    counter = "stream_sequence" if stream else "sequence"
    found: list[tuple[int, str]] = []
    size = 0
    for row in connection.execute(
        f"SELECT {counter}, body FROM events WHERE session_id = ? AND {counter} > ? ORDER BY {counter} LIMIT ?",
        (session_id, position, limit),
    ):
        found.append(row)
        size += len(row[1])
        if size >= PAGE_CHARACTERS:
            break
    return found


def _records(
    session_id: str, kinds: tuple[str, ...], after_id: int, limit: int, connection: sqlite3.Connection
) -> list[EventRow]:
    chosen = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
    values: tuple[Any, ...] = (session_id, after_id, *kinds, limit)
    found = connection.execute(
        f"SELECT {_COLUMNS}, id FROM events WHERE session_id = ? AND id > ? AND record IS NOT NULL{chosen}"
        " ORDER BY id LIMIT ?",
        values,
    )
    return [EventRow(*row) for row in found]
