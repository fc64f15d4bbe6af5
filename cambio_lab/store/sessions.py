"""Sessions as rows: what a listing shows and what the next start of the server needs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from .database import Database, Operation

Row = TypeVar("Row")
SessionStatus = Literal["active", "inactive", "error"]
SORT_KEYS = frozenset({"created_at", "ended_at", "id", "name", "status", "model", "steps"})
"""What a listing may be sorted by."""


class Columns(Generic[Row]):
    """How a dataclass lies in a table whose columns have the names of its fields; ``json`` names those with JSON."""

    def __init__(self, kind: type[Row], json: Collection[str] = ()) -> None:
        self.names = tuple(item.name for item in fields(kind))  # type: ignore[arg-type]
        self.columns, self.marks = ", ".join(self.names), ", ".join("?" * len(self.names))
        self._kind = kind
        self._json = [(index, name) for index, name in enumerate(self.names) if name in json]

    def insert(self, table: str, clause: str = "") -> str:
        return f"INSERT {clause} INTO {table} ({self.columns}) VALUES ({self.marks})"

    def select(self, table: str) -> str:
        return f"SELECT {self.columns} FROM {table}"

    def encode(self, row: Row) -> list[Any]:
        values = [getattr(row, name) for name in self.names]
        for index, _ in self._json:
            values[index] = dump(values[index])
        return values

    def decode(self, values: Sequence[Any]) -> Row:
        found = list(values)
        for index, _ in self._json:
            found[index] = json.loads(found[index])
        return self._kind(*found)


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
class Listed:
    """A session as a list shows it. ``json`` is an object: SQLite writes it, so that a page costs no Python a row."""

    id: str
    status: SessionStatus
    json: str


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

    def inserting(self, row: SessionRow) -> Operation[None]:
        return partial(_execute, _SESSION.insert("sessions"), tuple(_SESSION.encode(row)))

    async def update(self, session_id: str, **changes: Any) -> None:
        """Change the named columns; an unknown column is a ``KeyError``."""
        await self._database.write(self.updating(session_id, **changes))

    def updating(self, session_id: str, **changes: Any) -> Operation[None]:
        if unknown := changes.keys() - set(_SESSION.names):
            raise KeyError(f"sessions has no column {sorted(unknown)}")
        values = tuple(dump(value) if name in _JSON else value for name, value in changes.items())
        sql = f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in changes)} WHERE id = ?"
        return partial(_execute, sql, (*values, session_id))

    def growing(self, session_id: str, size: int) -> Operation[int]:
        """Add ``size`` bytes to what the session's record takes; the new total (0 for an unknown session)."""
        return partial(_grow, session_id, size)

    async def get(self, session_id: str) -> SessionRow | None:
        return await self._database.read(partial(_get, session_id), snapshot=False)

    async def live(self) -> list[SessionRow]:
        """Sessions whose status is ``active``, oldest first: after a crash, those to adopt."""
        return await self._database.read(_live)

    async def removable(self) -> list[tuple[str, float]]:
        """Return ``(id, when it ended)`` of every session that has ended and is not pinned, the oldest first."""
        return await self._database.read(_removable, snapshot=False)

    async def page(self, query: SessionQuery) -> Page[SessionRow]:
        """Newest first unless ``query.sort`` says otherwise; ``ValueError`` for a key that cannot be sorted by."""
        return await self._database.read(partial(_page, _checked(query)))

    async def listing(self, query: SessionQuery) -> Page[Listed]:
        """:meth:`page` as what a list shows: names, states, times, what was used."""
        return await self._database.read(partial(_listing, _checked(query)), snapshot=False)

    async def remove(self, session_id: str) -> None:
        """Forget an ended session: its row, history and record (``screenshots.sweep`` removes the files)."""
        await self._database.write(partial(_remove, session_id))


_JSON = frozenset({"config", "usage"})
_SESSION = Columns(SessionRow, json=_JSON)
_SELECT = _SESSION.select("sessions")
_TIME = "strftime('%Y-%m-%dT%H:%M:%SZ', CAST({} AS INTEGER), 'unixepoch')"
_SELECT_JSON = (
    "SELECT id, status, json_object('id', id, 'name', name, 'status', status,"
    f" 'created_at', {_TIME.format('created_at')}, 'ended_at', {_TIME.format('ended_at')}, 'end_reason', end_reason,"
    " 'model', model, 'desktop', desktop_kind, 'steps', steps, 'usage', json(usage),"
    " 'record_bytes', record_bytes, 'pinned', json(iif(pinned, 'true', 'false'))) AS json FROM sessions"
)


def _execute(sql: str, values: tuple[Any, ...], connection: sqlite3.Connection) -> None:
    connection.execute(sql, values)


def _grow(session_id: str, size: int, connection: sqlite3.Connection) -> int:
    sql = "UPDATE sessions SET record_bytes = record_bytes + ? WHERE id = ? RETURNING record_bytes"
    found = connection.execute(sql, (size, session_id)).fetchall()
    return int(found[0][0]) if found else 0


def _get(session_id: str, connection: sqlite3.Connection) -> SessionRow | None:
    row = connection.execute(f"{_SELECT} WHERE id = ?", (session_id,)).fetchone()
    return row and _SESSION.decode(row)


def _live(connection: sqlite3.Connection) -> list[SessionRow]:
    return [
        _SESSION.decode(row)
        for row in connection.execute(f"{_SELECT} WHERE status = 'active' ORDER BY created_at, number")
    ]


def _removable(connection: sqlite3.Connection) -> list[tuple[str, float]]:
    sql = "SELECT id, coalesce(ended_at, created_at) AS ended FROM sessions WHERE status <> 'active' AND NOT pinned"
    return connection.execute(f"{sql} ORDER BY ended, number").fetchall()


def _checked(query: SessionQuery) -> SessionQuery:
    if unknown := [key for key, _ in query.sort if key not in SORT_KEYS]:
        raise ValueError(f"cannot sort by {', '.join(unknown)}")
    return query


def _page(query: SessionQuery, connection: sqlite3.Connection) -> Page[SessionRow]:
    page, on_page = _rows(_SELECT, query)
    total, counted = _total(query)
    (count,) = connection.execute(total, counted).fetchone()
    return Page([_SESSION.decode(row) for row in connection.execute(page, on_page)], count)


def _listing(query: SessionQuery, connection: sqlite3.Connection) -> Page[Listed]:
    """One row for the whole page: for each row that SQLite steps to, Python's threads take turns."""
    page, on_page = _rows(_SELECT_JSON, query)
    total, counted = _total(query)
    sql = f"SELECT ({total}), group_concat(id), group_concat(status), group_concat(json, char(10)) FROM ({page})"
    count, *columns = connection.execute(sql, (*counted, *on_page)).fetchone()
    if columns[0] is None:
        return Page([], count)
    ids, states, texts = columns[0].split(","), columns[1].split(","), columns[2].split("\n")
    return Page([Listed(*row) for row in zip(ids, states, texts, strict=True)], count)


def _rows(columns: str, query: SessionQuery) -> tuple[str, tuple[Any, ...]]:
    """The statement that gives ``columns`` of the rows on the page, and its values."""
    where, values = _where(query)
    order = [f"{key} {'ASC' if ascending else 'DESC'}" for key, ascending in query.sort]
    last = "ASC" if query.sort and query.sort[-1][1] else "DESC"  # an index is read one way
    sql = f"{columns}{where} ORDER BY {', '.join([*order, f'number {last}'])} LIMIT ? OFFSET ?"
    return sql, (*values, query.limit, query.offset)


def _total(query: SessionQuery) -> tuple[str, tuple[Any, ...]]:
    """The statement that gives how many there are in all, and its values; without times it counts no rows."""
    if query.created_after is None and query.created_before is None:
        only, values = (" WHERE status = ?", (query.status,)) if query.status else ("", ())
        return f"SELECT coalesce(sum(sessions), 0) FROM session_counts{only}", values
    where, found = _where(query)
    return f"SELECT count(*) FROM sessions{where}", found


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
