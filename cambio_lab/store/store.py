"""The store as the rest sees it: open, tables, close; and what to do with a damaged file."""

from __future__ import annotations

import asyncio
import datetime
import logging
import time
from pathlib import Path
from typing import Any

from cambio_lab.errors import StoreCorrupt, StoreError, StoreUnavailable

from .database import Database, Operation, suspicion, together
from .events import EventTable
from .exchanges import ExchangeTable
from .lock import DirectoryLock
from .messages import MessageTable
from .screenshots import ScreenshotFiles
from .sessions import SessionTable
from .steps import StepTable
from .transcript import TranscriptTable

logger = logging.getLogger(__name__)
FILE_NAME = "cambio.db"


class Store:
    """One data directory. Make it with :meth:`open`."""

    def __init__(self, directory: Path, lock: DirectoryLock | None, database: Database) -> None:
        self.directory = directory
        self.database = database
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
            set_aside = None
            try:
                database = await _open(path)
            except StoreCorrupt as error:
                set_aside = await asyncio.to_thread(_set_aside, path)
                logger.error("%s It is kept as %s, and a new database is begun.", error, set_aside)
                database = await _open(path)
            store = cls(directory, lock, database)
            store.set_aside = set_aside
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

    async def write(self, *operations: Operation[Any]) -> list[Any]:
        """Do all of ``operations`` in one transaction, on disk when this returns; their results, in order."""
        return await self.database.write(together(*operations))

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
                await self.database.write(lambda connection: connection.execute("PRAGMA user_version = 1"))
            else:
                await self.database.read(lambda connection: connection.execute("SELECT 1").fetchone())
        except StoreError as error:
            return error
        return None

    async def disk_bytes(self) -> int:
        """What the database, those that were set aside and the pictures take on disk."""
        return await self.screenshots.disk_bytes() + await asyncio.to_thread(self._database_bytes)

    def damaged(self) -> list[Path]:
        """Databases that were set aside, at this start or an earlier one. They may name pictures that ours does not."""
        return sorted(self.directory.glob(f"{FILE_NAME}.damaged-*"))

    def _database_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.directory.glob(f"{FILE_NAME}*"))


async def _open(path: Path) -> Database:
    database = Database(path)
    await database.open()
    return database


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


def _set_aside(path: Path) -> Path:
    """Move the file and its log away; never onto anything."""
    stamp = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(target.with_name(target.name + suffix))
    suspicion(path).unlink(missing_ok=True)
    return target
