"""The store of one data directory: the lock, the database with its tables, the screenshots."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path

from cambio_lab.errors import DirectoryInUse, StoreCorrupt, StoreError, StoreUnavailable

from .database import Database, execute, select
from .database import Operation as Operation
from .migrations import set_aside
from .rows import EventRow as EventRow
from .rows import ExchangeRow as ExchangeRow
from .rows import MessageQuery as MessageQuery
from .rows import MessageRow as MessageRow
from .rows import Page as Page
from .rows import SessionQuery as SessionQuery
from .rows import SessionRow as SessionRow
from .rows import SessionStatus as SessionStatus
from .rows import StepRow as StepRow
from .screenshots import ScreenshotFiles, TranscriptTable
from .tables import EventTable, ExchangeTable, MessageTable, SessionTable, StepTable
from .tables import new_message_id as new_message_id

logger = logging.getLogger(__name__)
FILE_NAME = "cambio.db"


def lock_directory(directory: Path) -> int:
    """Make the directory and lock it; the descriptor that holds it. The kernel frees it however the process ends.

    The file ``lock`` stays: removing it would let a third process lock another one. Raises :class:`DirectoryInUse`
    naming the process that holds the directory, :class:`StoreUnavailable` where it cannot be used.
    """
    lock: int | None = None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        holder = b""
        if lock is not None:
            holder = os.pread(lock, 32, 0)
            os.close(lock)
        if isinstance(error, BlockingIOError):
            pid = holder.decode("ascii", "replace").strip() or "unknown"
            raise DirectoryInUse(
                f"Another server (process {pid}) uses this data directory.",
                hint="Stop it, or give this server its own with --CambioLab.data_dir or CAMBIO_LAB_DATA_DIR.",
                details={"pid": pid},
            ) from None
        raise StoreUnavailable(
            f"The data directory cannot be used: {error.strerror}.",
            hint="Choose another with --CambioLab.data_dir or CAMBIO_LAB_DATA_DIR.",
        ) from error
    return lock


class Store:
    """One data directory. Make it with :meth:`open`."""

    def __init__(self, directory: Path, lock: int | None, database: Database) -> None:
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
        lock = await asyncio.to_thread(lock_directory, directory)
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
            os.close(lock)
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
            os.close(self._lock)
            self._lock = None

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
        sizes = await asyncio.to_thread(lambda: [path.stat().st_size for path in self.directory.glob(f"{FILE_NAME}*")])
        return await self.screenshots.disk_bytes() + sum(sizes)

    def damaged(self) -> list[Path]:
        """Return the databases that were set aside, at any start; they may name screenshots that ours does not."""
        return sorted(self.directory.glob(f"{FILE_NAME}.damaged-*"))
