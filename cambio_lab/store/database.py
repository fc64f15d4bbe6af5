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
from dataclasses import fields
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
_WRITING = ("journal_mode = WAL", "synchronous = FULL", f"journal_size_limit = {64 * 1024 * 1024}")
Job = tuple[Operation[Any], asyncio.Future[Any]]


class Database:
    """One SQLite file. Make it with :meth:`open`; all methods belong to the event loop that opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: StoreError | None = None
        """Why the last write failed, or that damage was met; ``None`` as long as the disk takes what it is given."""
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(WAITING_WRITES)
        self._read_room = asyncio.Semaphore(WAITING_READS)
        self._readers = ThreadPoolExecutor(READERS, "cambio-store-read")
        self._connections: dict[int, sqlite3.Connection] = {}
        """Of each reader's thread."""
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
        while self._connections:
            self._connections.popitem()[1].close()

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
        done = self._loop.create_future()
        done.add_done_callback(lambda _: self._room.release())
        self._jobs.put((operation, done))
        result: T = await asyncio.shield(done)
        return result

    async def write_all(self, *operations: Operation[Any]) -> list[Any]:
        """Do all of ``operations`` in one transaction, on disk when this returns; their results, in order."""
        return await self.write(lambda connection: [operation(connection) for operation in operations])

    async def read(self, operation: Operation[T]) -> T:
        """Run ``operation`` on a read-only connection in a thread; it sees every write that was acknowledged.

        All of its statements see the same state.
        """
        async with self._read_room:
            return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, operation)

    async def live_bytes(self) -> int:
        """Size of the pages that hold something: what the file would take without those that deletions freed."""
        return await self.read(_live_bytes)

    async def compact(self) -> int:
        """Give the space of deleted rows back to the disk, in a thread; how many bytes the file shrank.

        Raises :class:`StoreUnavailable` when the disk has no room for the copy that this makes.
        """

        def vacuum() -> int:
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

        return await asyncio.to_thread(vacuum)

    # The writer's thread

    def _write_all(self, ready: asyncio.Future[None]) -> None:
        assert self._loop is not None
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(contextlib.closing(self._connect()))
                check(connection, self.path)
                migrate(connection)
                failure = None
            except Exception as error:
                failure = translate(error)
            self._loop.call_soon_threadsafe(_settle, [ready], [(None, failure)])
            while failure is None and (jobs := self._take()):
                outcomes = self._commit(connection, jobs)
                self._loop.call_soon_threadsafe(_settle, [done for _, done in jobs], outcomes)

    def _take(self) -> list[Job]:
        """Everything that waits now, at least one job; empty when the database closes."""
        jobs: list[Job] = []
        with contextlib.suppress(queue.Empty):
            while len(jobs) < LARGEST_GROUP and (job := self._jobs.get(block=not jobs)) is not None:
                jobs.append(job)
            if jobs and job is None:
                self._jobs.put(None)  # close() comes after these
        return jobs

    def _commit(self, connection: sqlite3.Connection, jobs: list[Job]) -> list[tuple[Any, Exception | None]]:
        """Run ``jobs`` in one transaction; a result or an error for each, in order."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes: list[tuple[Any, Exception | None]] = [(operation(connection), None) for operation, _ in jobs]
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            failure = translate(error)
            if isinstance(failure, StoreError):
                self._failed(failure)
            if isinstance(failure, StoreUnavailable) or len(jobs) == 1:
                return [(None, failure)] * len(jobs)  # the disk, not the operation: each alone would fail as well
            return [self._commit(connection, [job])[0] for job in jobs]
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

    def _connect(self, *, reading: bool = False) -> sqlite3.Connection:
        if not reading:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (f"cache_size = -{CACHE_KILOBYTES}", *(("query_only = ON",) if reading else _WRITING)):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    # The readers' threads

    def _read(self, operation: Operation[T]) -> T:
        try:
            thread = threading.get_ident()
            if (connection := self._connections.get(thread)) is None:
                connection = self._connections[thread] = self._connect(reading=True)
            connection.execute("BEGIN")  # a page and its total agree
            try:
                return operation(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            failure = translate(error)
            if isinstance(failure, StoreCorrupt):
                self._failed(failure)
            raise failure from error


def _live_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _settle(futures: list[Any], outcomes: Sequence[tuple[Any, Exception | None]]) -> None:
    for done, (result, error) in zip(futures, outcomes, strict=True):
        if done.done():
            continue
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
            done.exception()  # the caller may have been cancelled and never ask


class Table:
    """A table of the database. Methods without ``async`` give an operation to combine in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database


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

        def decode(row: Sequence[Any]) -> Row:
            pairs = zip(self.names, row, strict=True)
            return self._kind(*[json.loads(value) if name in self.json else value for name, value in pairs])

        return lambda connection: [decode(row) for row in connection.execute(f"{self._select} {which}", values)]


def execute(sql: str, *values: Any) -> Operation[int]:
    """Return the operation that runs one statement; it gives how many rows that changed."""
    return lambda connection: connection.execute(sql, values).rowcount


def select(sql: str, *values: Any) -> Operation[list[Any]]:
    """Return the operation that reads all rows of a query."""
    return lambda connection: connection.execute(sql, values).fetchall()


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
