"""The store of one data directory: the lock, the database, the screenshots; and its sessions, as rows."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cambio_lab.errors import DirectoryInUse, StoreCorrupt, StoreError, StoreUnavailable
from cambio_lab.events import Usage, timestamp

from .database import Columns, Database, Operation, Page, dump, execute, select
from .migrations import set_aside
from .record import (
    EventRow,
    EventTable,
    ExchangeRow,
    ExchangeTable,
    MessageQuery,
    MessageRow,
    MessageTable,
    StepRow,
    StepTable,
    new_message_id,
)
from .screenshots import ScreenshotFiles, TranscriptTable

__all__ = [
    "SORT_KEYS",
    "EventRow",
    "ExchangeRow",
    "MessageQuery",
    "MessageRow",
    "Operation",
    "Page",
    "SessionQuery",
    "SessionRow",
    "SessionStatus",
    "StepRow",
    "Store",
    "new_message_id",
]

logger = logging.getLogger(__name__)
FILE_NAME = "cambio.db"
SessionStatus = Literal["active", "inactive", "error"]
SORT_KEYS = frozenset({"created_at", "ended_at", "id", "name", "status", "model", "steps"})
"""What a listing may be sorted by."""


class DirectoryLock:
    """Holds ``lock`` in a data directory. The kernel frees it when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Raises :class:`DirectoryInUse` naming the process that holds the directory."""
        self._file: int | None = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            self._file = None
            raise DirectoryInUse(
                f"Another server (process {holder}) uses this data directory.",
                hint="Stop it, or give this server its own with --CambioLab.data_dir or CAMBIO_LAB_DATA_DIR.",
                details={"pid": holder},
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Idempotent. The file stays: removing it would let a third process lock another file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Store:
    """One data directory. Make it with :meth:`open`."""

    def __init__(self, directory: Path, lock: DirectoryLock | None, database: Database) -> None:
        self.directory = directory
        self.database = database
        self.write = database.write_all
        self.set_aside: Path | None = None
        """Where a damaged database was moved at this start, if there was one."""
        self.screenshots = ScreenshotFiles(directory / "screenshots")
        self.sessions = SessionTable(database)
        self.messages = MessageTable(database)
        self.steps = StepTable(database)
        self.events = EventTable(database)
        self.transcript = TranscriptTable(database, self.screenshots)
        self.exchanges = ExchangeTable(database)
        self._lock = lock

    @classmethod
    async def open(cls, directory: Path) -> Store:
        """Open or create the store in ``directory`` (mode 0700).

        A damaged database is set aside under a name with the time, which the log says, and a new one is begun.
        Raises :class:`~cambio_lab.errors.ConfigurationError` when another server uses the directory and
        :class:`~cambio_lab.errors.StoreUnavailable` when the disk does not take it.
        """
        lock = await asyncio.to_thread(_prepare, directory)
        try:
            path = directory / FILE_NAME
            moved = None
            try:
                database = await Database(path).open()
            except StoreCorrupt as error:
                moved = await asyncio.to_thread(set_aside, path)
                logger.error("%s It is kept as %s, and a new database is begun.", error, moved)
                database = await Database(path).open()
            store = cls(directory, lock, database)
            store.set_aside = moved
            await store.screenshots.open()
        except BaseException:
            lock.release()
            raise
        return store

    @classmethod
    def open_read_only(cls, directory: Path) -> Store:
        """Open a store that a server may be using; every write raises ``StoreUnavailable``."""
        return cls(directory, None, Database(directory / FILE_NAME))

    async def close(self) -> None:
        """Commit what waits and release the directory; idempotent."""
        await self.database.close()
        await self.screenshots.close()
        if self._lock is not None:
            self._lock.release()

    @property
    def failure(self) -> StoreError | None:
        """Why the store refused the last write, or that it met damage; ``None`` while all is well."""
        return self.database.failure

    async def health(self) -> StoreError | None:
        """Try a write if the last one failed, read something otherwise; what is wrong, or ``None``.

        Damage that was met is wrong until the next start, whatever can still be written.
        """
        if isinstance(self.failure, StoreCorrupt):
            return self.failure
        try:
            if self.failure is not None:
                await self.database.write(execute("PRAGMA user_version = 1"))
            else:
                await self.database.read(select("SELECT 1"))
        except StoreError as error:
            return error
        return None

    async def screenshots_of(self, session_id: str) -> set[str]:
        """Return the digests of the screenshots that a session's record names."""
        sql = "SELECT sha256 FROM session_screenshots WHERE session_id = ?"
        return {digest for (digest,) in await self.database.read(select(sql, session_id))}

    async def screenshot_uses(self) -> dict[str, int]:
        """Return how many sessions name each screenshot, by digest."""
        sql = "SELECT sha256, count(*) FROM session_screenshots GROUP BY sha256"
        return dict(await self.database.read(select(sql)))

    async def disk_bytes(self) -> int:
        """Return what the database, those that were set aside and the screenshots take on disk."""
        return await self.screenshots.disk_bytes() + await asyncio.to_thread(self._database_bytes)

    def damaged(self) -> list[Path]:
        """Return the databases that were set aside, at any start; they may name screenshots that ours does not."""
        return sorted(self.directory.glob(f"{FILE_NAME}.damaged-*"))

    def _database_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.directory.glob(f"{FILE_NAME}*"))


def _prepare(directory: Path) -> DirectoryLock:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        return DirectoryLock(directory)
    except OSError as error:
        raise StoreUnavailable(
            f"The data directory cannot be used: {error.strerror}.",
            hint="Choose another with --CambioLab.data_dir or CAMBIO_LAB_DATA_DIR.",
        ) from error


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
