"""Requests to the model and their replies, byte for byte as far as a replay needs them."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .database import Database, Operation


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


class ExchangeTable:
    """The ``exchanges`` table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, row: ExchangeRow) -> None:
        """Write an exchange, or complete one that was written before its reply had ended."""
        await self._database.write(self.appending(row))

    def appending(self, row: ExchangeRow) -> Operation[None]:
        return partial(_append, row)

    async def of(self, session_id: str) -> list[ExchangeRow]:
        return await self._database.read(partial(_of, session_id))

    async def count(self, session_id: str) -> int:
        """The highest number so far; 0 when there is none."""
        return await self._database.read(partial(_count, session_id))


_COLUMNS = (
    "session_id, number, started_at, request_sha256, request, status, headers, response, first_byte_ms, total_ms, error"
)


def _append(row: ExchangeRow, connection: sqlite3.Connection) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO exchanges ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(row.session_id, row.number, row.started_at, row.request_sha256, row.request, row.status),
            json.dumps(row.headers),
            *(row.response, row.first_byte_ms, row.total_ms, row.error),
        ),
    )
    connection.execute(
        "UPDATE sessions SET record_bytes = record_bytes + ? WHERE id = ?",
        (len(row.request) + len(row.response), row.session_id),
    )


def _of(session_id: str, connection: sqlite3.Connection) -> list[ExchangeRow]:
    found = connection.execute(f"SELECT {_COLUMNS} FROM exchanges WHERE session_id = ? ORDER BY number", (session_id,))
    return [_decode(row) for row in found]


def _decode(row: tuple[Any, ...]) -> ExchangeRow:
    values = list(row)
    values[6] = json.loads(values[6])
    return ExchangeRow(*values)


def _count(session_id: str, connection: sqlite3.Connection) -> int:
    sql = "SELECT coalesce(max(number), 0) FROM exchanges WHERE session_id = ?"
    return int(connection.execute(sql, (session_id,)).fetchone()[0])
