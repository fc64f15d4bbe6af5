"""Tool calls: written when they begin, completed when they end, so that a crash in between is seen."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from .database import Database, Operation

StepStatus = Literal["started", "completed", "failed", "denied", "interrupted"]


@dataclass(frozen=True, slots=True)
class StepRow:
    """One tool call. Times are epoch seconds; ``timing`` has ``action``, ``settle``, ``encode``, ``total`` in ms.

    ``sha256`` names the picture that the model saw, if any. What a reply of the model ``said`` and cost (US dollars)
    stands with the first call that it made.
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
    """The number of the event that told of its begin; ``None`` in records of older versions."""


class StepTable:
    """The ``steps`` table; ``step`` counts a session's calls from 1."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, row: StepRow) -> None:
        """Write a call, or the end of one that was written before."""
        await self._database.write(self.appending(row))

    def appending(self, row: StepRow) -> Operation[None]:
        return partial(_append, row)

    def interrupting(self, session_id: str, time: float) -> Operation[int]:
        """Mark calls that never ended as ``interrupted``; how many there were."""
        return partial(_interrupt, session_id, time)

    async def of(self, session_id: str, *, after: int = 0, limit: int = 1_000_000) -> list[StepRow]:
        """The session's calls in order, from the one after step ``after``."""
        return await self._database.read(partial(_of, session_id, after, limit))


_COLUMNS = (
    "session_id, step, tool_use_id, tool, toolset, arguments, status, started_at, ended_at, text, timing,"
    " sha256, media_type, width, height, said, cost_usd, sequence"
)


def _append(row: StepRow, connection: sqlite3.Connection) -> None:
    connection.execute(
        f"INSERT INTO steps ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
        " (SELECT last_sequence FROM sessions WHERE id = ?))"
        " ON CONFLICT (session_id, step) DO UPDATE SET status = excluded.status, ended_at = excluded.ended_at,"
        " text = excluded.text, timing = excluded.timing, sha256 = excluded.sha256,"
        " media_type = excluded.media_type, width = excluded.width, height = excluded.height",
        (
            *(row.session_id, row.step, row.tool_use_id, row.tool, row.toolset),
            json.dumps(row.arguments, separators=(",", ":"), ensure_ascii=False),
            *(row.status, row.started_at, row.ended_at, row.text, json.dumps(row.timing, separators=(",", ":"))),
            *(row.sha256, row.media_type, row.width, row.height, row.said, row.cost_usd, row.session_id),
        ),
    )


def _interrupt(session_id: str, time: float, connection: sqlite3.Connection) -> int:
    return connection.execute(
        "UPDATE steps SET status = 'interrupted', ended_at = ? WHERE session_id = ? AND status = 'started'",
        (time, session_id),
    ).rowcount


def _of(session_id: str, after: int, limit: int, connection: sqlite3.Connection) -> list[StepRow]:
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM steps WHERE session_id = ? AND step > ? ORDER BY step LIMIT ?",
        (session_id, after, limit),
    )
    return [_decode(row) for row in rows]


def _decode(row: tuple[Any, ...]) -> StepRow:
    values = list(row)
    values[5] = json.loads(values[5])
    values[10] = json.loads(values[10])
    return StepRow(*values)
