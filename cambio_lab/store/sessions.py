"""Sessions as rows: what a listing shows and what the next start of the server needs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from cambio_lab.events import Usage, timestamp

from .database import Database, Operation

Row = TypeVar("Row")
SessionStatus = Literal["active", "inactive", "error"]
SORT_KEYS = frozenset({"created_at", "ended_at", "id", "name", "status", "model", "steps"})
"""What a listing may be sorted by."""


class Columns(Generic[Row]):
    """How a dataclass lies in a table whose columns have the names of its fields; ``json`` names those with JSON."""

    def __init__(self, kind: type[Row], table: str, json: Collection[str] = ()) -> None:
        self.names = tuple(item.name for item in fields(kind))  # type: ignore[arg-type]
        self.columns, self.marks = ", ".join(self.names), ", ".join("?" * len(self.names))
        self.insert = f"INSERT INTO {table} ({self.columns}) VALUES ({self.marks})"
        self.json = frozenset(json)
        self._select = f"SELECT {self.columns} FROM {table}"
        self._kind = kind

    def encode(self, row: Row) -> list[Any]:
        values = ((name, getattr(row, name)) for name in self.names)
        return [dump(value) if name in self.json else value for name, value in values]

    def find(self, which: str, *values: Any) -> Operation[list[Row]]:
        """Return the operation that reads the rows that ``which`` (``WHERE``, ``ORDER BY``, ``LIMIT``) asks for."""
        sql = f"{self._select} {which}"
        return lambda connection: [self._decode(row) for row in connection.execute(sql, values)]

    def _decode(self, values: Sequence[Any]) -> Row:
        pairs = zip(self.names, values, strict=True)
        return self._kind(*[json.loads(value) if name in self.json else value for name, value in pairs])


def execute(sql: str, *values: Any) -> Operation[int]:
    """Return the operation that runs one statement; it gives how many rows that changed."""
    return lambda connection: connection.execute(sql, values).rowcount


def select(sql: str, *values: Any) -> Operation[list[Any]]:
    """Return the operation that reads all rows of a query."""
    return lambda connection: connection.execute(sql, values).fetchall()


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


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


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows and how many there are in all that match."""

    rows: list[Row]
    total: int


class SessionTable:
    """The ``sessions`` table. Methods without ``async`` give an operation to combine in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        return partial(_grow, session_id, size)

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
        return await self._database.read(partial(_page, query))

    async def remove(self, session_id: str) -> None:
        """Forget an ended session: its row, history and record (``screenshots.sweep`` removes the files)."""
        await self._database.write(partial(_remove, session_id))


_SESSION = Columns(SessionRow, "sessions", json=("config", "usage", "tags"))


def _grow(session_id: str, size: int, connection: sqlite3.Connection) -> int:
    sql = "UPDATE sessions SET record_bytes = record_bytes + ? WHERE id = ? RETURNING record_bytes"
    found = connection.execute(sql, (size, session_id)).fetchall()
    return int(found[0][0]) if found else 0


def _page(query: SessionQuery, connection: sqlite3.Connection) -> Page[SessionRow]:
    where, values = _where(query)
    order = [f"{key} {'ASC' if ascending else 'DESC'}" for key, ascending in query.sort]
    last = "ASC" if query.sort and query.sort[-1][1] else "DESC"  # an index is read one way
    which = f"{where} ORDER BY {', '.join([*order, f'number {last}'])} LIMIT ? OFFSET ?"
    rows = _SESSION.find(which, *values, query.limit, query.offset)(connection)
    if query.created_after is None and query.created_before is None:  # rows need not be counted
        total = f"SELECT coalesce(sum(sessions), 0) FROM session_counts{where}"
    else:
        total = f"SELECT count(*) FROM sessions{where}"
    return Page(rows, connection.execute(total, values).fetchone()[0])


def _where(query: SessionQuery) -> tuple[str, tuple[Any, ...]]:
    possible = (
        ("status = ?", query.status),
        ("created_at > ?", query.created_after),
        ("created_at < ?", query.created_before),
    )
    asked = [(condition, value) for condition, value in possible if value is not None]
    where = f" WHERE {' AND '.join(condition for condition, _ in asked)}" if asked else ""
    return where, tuple(value for _, value in asked)


def _remove(session_id: str, connection: sqlite3.Connection) -> None:
    for table in ("messages", "transcript", "steps", "events", "exchanges", "session_screenshots"):
        connection.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))
    connection.execute("DELETE FROM sessions WHERE id = ? AND status <> 'active'", (session_id,))
