"""Screenshots as files named by the SHA-256 of their bytes: written once, never changed, shared by all sessions.

The table ``session_screenshots`` says which sessions name which. The conversation as the model is sent it names them,
too: its images are these files.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cambio_lab.errors import StoreUnavailable

from .database import Database, Operation, Table, dump, execute, select

T = TypeVar("T")
Message = dict[str, Any]
_STORED_AS_FILE = "cambio_picture"
MEDIA_TYPES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_KNOWN = 4096
"""Digests known to be on disk: an unchanged screen is not looked up again."""


class ScreenshotFiles:
    """Files ``screenshots/ab/ab….png`` below the data directory, mode 0600."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(2, "cambio-store-screenshots")
        self._known: dict[str, float] = {}
        """Digests and the monotonic time at which each was put last."""
        self._lock = threading.Lock()
        self._bytes: int | None = None
        """What all files take; counted once, then kept up to date."""

    async def open(self) -> None:
        """Create the directory and remove what a crash left half written."""

        def prepare() -> None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self._directory.glob("*/.writing-*"):
                left.unlink()

        await self._in_thread(prepare)

    async def put(self, data: bytes, media_type: str = "image/png") -> str:
        """Store a screenshot; return its digest once the file is on disk under its name.

        Raises ``ValueError`` for an unknown media type and :class:`StoreUnavailable` when the disk does not take it.
        """
        suffix = MEDIA_TYPES.get(media_type)
        if suffix is None:
            raise ValueError(f"not an image: {media_type}")
        return await self._in_thread(lambda: self._put(data, suffix))

    def path(self, sha256: str) -> Path | None:
        """Return where the screenshot is, or ``None``, also for anything but 64 hex digits."""
        if not _SHA256.fullmatch(sha256):
            return None
        return next((path for suffix in MEDIA_TYPES.values() if (path := self._place(sha256, suffix)).is_file()), None)

    async def read(self, sha256: str) -> tuple[bytes, str] | None:
        """Return the screenshot's bytes and media type, or ``None``."""
        return await self._in_thread(lambda: self.read_now(sha256))

    def read_now(self, sha256: str) -> tuple[bytes, str] | None:
        """:meth:`read` for a caller that is in a thread already."""
        path = self.path(sha256)
        if path is None:
            return None
        return path.read_bytes(), next(media for media, suffix in MEDIA_TYPES.items() if suffix == path.suffix)

    async def sweep(self, keep: Iterable[str], fresh: float = 0.0) -> int:
        """Remove what is not in ``keep`` and was not put within ``fresh`` seconds; return the bytes that this freed."""
        wanted, latest = frozenset(keep), time.monotonic() - fresh

        def unlink() -> int:
            freed = 0
            for path in self._files():
                with self._lock:
                    if path.stem not in wanted and self._known.get(path.stem, float("-inf")) < latest:
                        freed += path.stat().st_size
                        self._known.pop(path.stem, None)
                        path.unlink()
            with self._lock:
                self._bytes = None if self._bytes is None else self._bytes - freed
            return freed

        return await self._in_thread(unlink)

    async def disk_bytes(self) -> int:
        """Return what the screenshots take on disk."""

        def count() -> int:
            with self._lock:
                if self._bytes is None:
                    self._bytes = sum(path.stat().st_size for path in self._files())
                return self._bytes

        return await self._in_thread(count)

    async def sizes(self) -> dict[str, int]:
        """Return the bytes of every screenshot by its digest."""
        return await self._in_thread(lambda: {path.stem: path.stat().st_size for path in self._files()})

    async def close(self) -> None:
        self._threads.shutdown(wait=True)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreUnavailable(
                    "The store cannot take this now: the disk is full.",
                    hint="Free some space; the server goes on by itself.",
                ) from error
            raise StoreUnavailable("The store cannot reach its screenshots.", hint="See the server's log.") from error

    def _place(self, sha256: str, suffix: str) -> Path:
        return self._directory / sha256[:2] / f"{sha256}{suffix}"

    def _put(self, data: bytes, suffix: str) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        with self._lock:  # a sweep removes nothing between the look and the note
            if sha256 not in self._known:
                path = self._place(sha256, suffix)
                if not path.exists():
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    _write(path, data)
                    self._bytes = None if self._bytes is None else self._bytes + len(data)
                if len(self._known) >= _MAX_KNOWN:
                    del self._known[next(iter(self._known))]
            self._known[sha256] = time.monotonic()
        return sha256

    def _files(self) -> list[Path]:
        return [path for path in self._directory.glob("??/*") if not path.name.startswith(".")]


def name_screenshots(session_id: str, digests: Iterable[str], connection: sqlite3.Connection) -> None:
    """Note that the session names these screenshots: they stay on disk as long as its row does."""
    sql = "INSERT OR IGNORE INTO session_screenshots VALUES (?, ?)"
    connection.executemany(sql, [(session_id, digest) for digest in digests])


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: a temporary file, ``fsync``, rename, ``fsync`` of the directory."""
    temporary = path.with_name(f".writing-{secrets.token_hex(8)}")
    try:
        file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(file, "wb") as out:  # noqa: PTH123 - a descriptor, for its mode
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class TranscriptTable(Table):
    """The ``transcript`` table. What is loaded equals what was appended, to the byte."""

    def __init__(self, database: Database, screenshots: ScreenshotFiles) -> None:
        super().__init__(database)
        self._screenshots = screenshots

    async def appending(self, session_id: str, message: Message) -> Operation[Any]:
        """Put the message's screenshots on disk; return the operation that adds the message itself."""
        digests: list[str] = []
        stored = await _map_images(message, partial(self._put, digests))
        text = dump(stored)

        def operation(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO transcript (session_id, position, message)"
                " SELECT ?, coalesce(max(position), 0) + 1, ? FROM transcript WHERE session_id = ?",
                (session_id, text, session_id),
            )
            name_screenshots(session_id, digests, connection)

        return operation

    async def load(self, session_id: str) -> list[Message]:
        """Return the whole conversation, screenshots inline. One whose file is gone becomes a line of text."""
        return [await _map_images(message, self._get) for message in await self.stored(session_id)]

    async def stored(self, session_id: str) -> list[Message]:
        """Return the conversation as it is in the table: ``source`` of an image is its digest and media type."""
        sql = "SELECT message FROM transcript WHERE session_id = ? ORDER BY position"
        return [json.loads(text) for (text,) in await self._database.read(select(sql, session_id))]

    def dropping(self, session_id: str, count: int) -> Operation[int]:
        """Remove the last ``count`` messages."""
        last = "SELECT max(position) FROM transcript WHERE session_id = ?"
        sql = f"DELETE FROM transcript WHERE session_id = ? AND position > ({last}) - ?"
        return execute(sql, session_id, session_id, count)

    def clearing(self, session_id: str) -> Operation[int]:
        return execute("DELETE FROM transcript WHERE session_id = ?", session_id)

    async def _put(self, digests: list[str], block: Message) -> Message:
        source = block.get("source")
        if (
            not isinstance(source, dict)
            or source.get("type") != "base64"
            or source.get("media_type") not in MEDIA_TYPES
        ):
            return block
        try:
            data = base64.b64decode(source["data"], validate=True)
        except (binascii.Error, ValueError):
            return block
        if base64.b64encode(data).decode() != source["data"]:
            return block  # written in an unusual way: it would not come back to the byte
        sha256 = await self._screenshots.put(data, source["media_type"])
        digests.append(sha256)
        return {**block, "source": {"type": _STORED_AS_FILE, "sha256": sha256, "media_type": source["media_type"]}}

    async def _get(self, block: Message) -> Message:
        source = block.get("source")
        if not isinstance(source, dict) or source.get("type") != _STORED_AS_FILE:
            return block
        found = await self._screenshots.read(source["sha256"])
        if found is None:
            return {"type": "text", "text": "[the screenshot was removed]"}
        data = base64.b64encode(found[0]).decode()
        return {**block, "source": {"type": "base64", "media_type": source["media_type"], "data": data}}


async def _map_images(value: Any, change: Callable[[Message], Awaitable[Message]]) -> Any:
    """A copy of ``value`` in which ``change`` was applied to each image block, however deep; key order is kept."""
    if isinstance(value, list):
        return [await _map_images(item, change) for item in value]
    if isinstance(value, dict):
        if value.get("type") == "image":
            return await change(value)
        return {key: await _map_images(item, change) for key, item in value.items()}
    return value
