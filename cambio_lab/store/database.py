"""Connections: one writer thread that groups commits, readers of their own; how rows become objects.

A write is an :data:`Operation`, a function of the connection. Those that wait together are committed together: one
``fsync`` for all of them. When the caller of :meth:`Database.write` goes on, its rows are on disk (WAL with
``synchronous=FULL``). An operation must bear being run twice: when one of a group fails, the group is rolled back
and each is tried alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from cambio_lab.errors import StoreCorrupt, StoreError, StoreUnavailable

from .migrations import check, migrate, suspicion, translate

logger = logging.getLogger(__name__)
T = TypeVar("T")
Row = TypeVar("Row")
Operation = Callable[[sqlite3.Connection], T]

BUSY_SECONDS = 5.0
"""How long a write waits for another program that holds the file (a person with the ``sqlite3`` shell)."""
LARGEST_GROUP = 512
READERS = 4
WAITING_WRITES = 4096
WAITING_READS = 256
SECONDS_FOR_ROOM = 10.0
CACHE_KILOBYTES = 512
"""Of pages, for each of the five connections; the system caches the file as well. SQLite would take 2,000."""


@dataclass(frozen=True, slots=True)
class _Job:
    operation: Operation[Any]
    done: asyncio.Future[Any]


class _PerThread(threading.local):
    connection: sqlite3.Connection | None = None


class Database:
    """One SQLite file. Make it with :meth:`open`; all methods belong to the event loop that opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: StoreError | None = None
        """Why the last write failed, or that damage was met; ``None`` as long as the disk takes what it is given."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(WAITING_WRITES)
        self._read_room = asyncio.Semaphore(WAITING_READS)
        self._readers = ThreadPoolExecutor(READERS, "cambio-store-read")
        self._local = _PerThread()
        self._open_readers: list[sqlite3.Connection] = []
        self._writer: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> Self:
        """Create or open the file, check it, bring its schema up to date.

        Raises :class:`StoreCorrupt` when the file is damaged and :class:`StoreUnavailable` when the disk is full or
        another program holds the file.
        """
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._writer = threading.Thread(target=self._write_all, args=(ready,), name="cambio-store-write", daemon=True)
        self._writer.start()
        try:
            await ready
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Commit what waits, fold the log into the file, close; idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._jobs.put(None)
            await asyncio.get_running_loop().run_in_executor(None, writer.join)
        self._readers.shutdown(wait=True)
        while self._open_readers:
            self._open_readers.pop().close()

    async def write(self, operation: Operation[T]) -> T:
        """Run ``operation`` in a transaction and return its result once that is on disk.

        Raises :class:`StoreUnavailable` (nothing was written) when the disk is full, the file is held by another
        program or too many writes wait. Cancelling the caller does not undo the write.
        """
        if self._writer is None or self._loop is None:
            raise StoreUnavailable("The store is closed.")
        try:
            async with asyncio.timeout(SECONDS_FOR_ROOM):
                await self._room.acquire()
        except TimeoutError:
            raise StoreUnavailable("The store cannot keep up.", hint="Try again in a moment.") from None
        job = _Job(operation, self._loop.create_future())
        job.done.add_done_callback(lambda _: self._room.release())
        self._jobs.put(job)
        result: T = await asyncio.shield(job.done)
        return result

    async def write_all(self, *operations: Operation[Any]) -> list[Any]:
        """Do all of ``operations`` in one transaction, on disk when this returns; their results, in order."""
        return await self.write(lambda connection: [operation(connection) for operation in operations])

    async def read(self, operation: Operation[T], *, snapshot: bool = True) -> T:
        """Run ``operation`` on a read-only connection in a thread; it sees every write that was acknowledged.

        All of its statements see the same state; a single one does so without ``snapshot``, and is quicker.
        """
        async with self._read_room:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, operation, snapshot)

    async def live_bytes(self) -> int:
        """Size of the pages that hold something: what the file would take without those that deletions freed."""
        return await self.read(_live_bytes)

    async def compact(self) -> int:
        """Give the space of deleted rows back to the disk, in a thread; how many bytes the file shrank.

        Raises :class:`StoreUnavailable` when the disk has no room for the copy that this makes.
        """
        return await asyncio.to_thread(self._compact)

    def _compact(self) -> int:
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file is as large as what it holds
                before = self.path.stat().st_size
                if before == _live_bytes(connection):
                    return 0
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return before - self.path.stat().st_size
        except sqlite3.Error as error:
            raise translate(error) from error

    # The writer's thread

    def _write_all(self, ready: asyncio.Future[None]) -> None:
        assert self._loop is not None
        try:
            connection = self._connect()
            try:
                check(connection, self.path)
                migrate(connection)
            except BaseException:
                connection.close()
                raise
        except Exception as error:
            failure = translate(error) if isinstance(error, sqlite3.Error) else error
            self._loop.call_soon_threadsafe(_settle, ready, None, failure)
            return
        self._loop.call_soon_threadsafe(_settle, ready, None, None)
        try:
            while jobs := self._take():
                outcomes = self._commit(connection, jobs)
                self._loop.call_soon_threadsafe(_settle_all, jobs, outcomes)
        finally:
            connection.close()

    def _take(self) -> list[_Job]:
        """Everything that waits now, at least one job; empty when the database closes."""
        first = self._jobs.get()
        if first is None:
            return []
        jobs = [first]
        while len(jobs) < LARGEST_GROUP:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)  # close() comes after these
                break
            jobs.append(job)
        return jobs

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> list[tuple[Any, Exception | None]]:
        """Run ``jobs`` in one transaction; a result or an error for each, in order."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes: list[tuple[Any, Exception | None]] = [(job.operation(connection), None) for job in jobs]
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = translate(error)
            if isinstance(failure, StoreError):
                self._failed(failure)
            if isinstance(failure, StoreUnavailable):  # the disk, not the operation: each alone would fail as well
                return [(None, failure)] * len(jobs)
            if len(jobs) > 1:
                return [self._commit(connection, [job])[0] for job in jobs]
            return [(None, failure)]
        if isinstance(self.failure, StoreUnavailable):  # damage stays: other pages can still be written
            logger.warning("the store takes writes again")
            self.failure = None
        return outcomes

    def _failed(self, failure: StoreError) -> None:
        """Remember why; damage is remembered until the server's next start, which looks at the whole file."""
        if isinstance(self.failure, StoreCorrupt):
            return
        if self.failure is None or isinstance(failure, StoreCorrupt):
            logger.error("the store takes no new work: %s (%s)", failure.describe(), failure.__cause__)
        self.failure = failure
        if isinstance(failure, StoreCorrupt):
            try:
                suspicion(self.path).touch(0o600)
            except OSError as error:
                logger.error("the next start will not check the database for damage: %s", error)

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KILOBYTES}")
            connection.execute(f"PRAGMA journal_size_limit = {64 * 1024 * 1024}")
        except BaseException:
            connection.close()
            raise
        return connection

    # The readers' threads

    def _read(self, operation: Operation[T], snapshot: bool) -> T:
        try:
            return self._run(operation, snapshot)
        except sqlite3.Error as error:
            failure = translate(error)
            if isinstance(failure, StoreCorrupt):
                self._failed(failure)
            raise failure from error

    def _run(self, operation: Operation[T], snapshot: bool) -> T:
        connection = self._local.connection
        if connection is None:
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA query_only = ON")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KILOBYTES}")
            self._local.connection = connection
            self._open_readers.append(connection)
        if not snapshot:
            return operation(connection)
        connection.execute("BEGIN")  # a page and its total agree
        try:
            return operation(connection)
        finally:
            connection.execute("ROLLBACK")


def _live_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
        done.exception()  # the caller may have been cancelled and never ask


def _settle_all(jobs: list[_Job], outcomes: list[tuple[Any, Exception | None]]) -> None:
    for job, (result, error) in zip(jobs, outcomes, strict=True):
        _settle(job.done, result, error)


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
class Page(Generic[Row]):
    """Some rows and how many there are in all that match."""

    rows: list[Row]
    total: int
