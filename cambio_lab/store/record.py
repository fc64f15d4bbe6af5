"""The record of a session: its events, its tool calls, and its requests to the model with their replies."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .database import Columns, Operation, Table, execute, select
from .screenshots import name_screenshots

PAGE_CHARACTERS = 2_000_000
"""A page of events ends after this much of their text."""
StepStatus = Literal["started", "completed", "failed", "denied", "skipped", "interrupted"]
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
_CHANGES_AT_END = ("status", "ended_at", "text", "timing", "sha256", "media_type", "width", "height")


class EventTable(Table):
    """The ``events`` table."""

    def appending(self, rows: Sequence[EventRow]) -> Operation[None]:
        """Add events and move the session's two counters to the last of them."""

        kept = tuple(rows)

        def operation(connection: sqlite3.Connection) -> None:
            connection.executemany(_EVENT.insert, map(_EVENT.encode, kept))
            last: dict[str, tuple[int, int, int]] = {}
            for row in kept:
                plain, stream, size = last.get(row.session_id, (0, 0, 0))
                size += len(row.body or "") + len(row.record or "")
                last[row.session_id] = (row.sequence or plain, row.stream_sequence or stream, size)
                name_screenshots(row.session_id, _SCREENSHOT.findall(row.record or ""), connection)
            connection.executemany(
                "UPDATE sessions SET last_sequence = max(last_sequence, ?), last_stream_sequence ="
                " max(last_stream_sequence, ?), record_bytes = record_bytes + ? WHERE id = ?",
                [(*numbers, session_id) for session_id, numbers in last.items()],
            )

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
        return await self._database.read(_EVENT.find(which, session_id, *kinds))


class StepTable(Table):
    """The ``steps`` table; ``step`` counts a session's calls from 1."""

    def appending(self, row: StepRow) -> Operation[None]:
        """Write a call, or the end of one that was written before."""

        def operation(connection: sqlite3.Connection) -> None:
            changes = ", ".join(f"{name} = excluded.{name}" for name in _CHANGES_AT_END)
            sql = f"{_STEP.insert} ON CONFLICT (session_id, step) DO UPDATE SET {changes}"
            connection.execute(sql, _STEP.encode(row))
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
        return await self._database.read(_STEP.find(which, session_id, after, limit))


class ExchangeTable(Table):
    """The ``exchanges`` table."""

    def appending(self, row: ExchangeRow, screenshots: Sequence[str] = ()) -> Operation[None]:
        """Write an exchange, or complete one that was written before its reply had ended.

        ``screenshots`` are the digests that the request refers to and the one before it does not.
        """

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(_EXCHANGE.insert.replace("INSERT", "INSERT OR REPLACE", 1), _EXCHANGE.encode(row))
            connection.execute(
                "UPDATE sessions SET record_bytes = record_bytes + ? WHERE id = ?",
                (len(row.request) + len(row.response), row.session_id),
            )
            name_screenshots(row.session_id, screenshots, connection)

        return operation

    async def of(self, session_id: str) -> list[ExchangeRow]:
        return await self._database.read(_EXCHANGE.find("WHERE session_id = ? ORDER BY number", session_id))

    async def count(self, session_id: str) -> int:
        """Return the highest number so far; 0 when there is none."""
        sql = "SELECT coalesce(max(number), 0) FROM exchanges WHERE session_id = ?"
        [(highest,)] = await self._database.read(select(sql, session_id))
        return int(highest)
