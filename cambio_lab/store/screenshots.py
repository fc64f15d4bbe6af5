"""Pictures as files named by the SHA-256 of their bytes: written once, never changed, shared by all sessions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cambio_lab.errors import StoreUnavailable

T = TypeVar("T")
MEDIA_TYPES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEMBERED = 4096
"""Digests known to be on disk: an unchanged screen is not looked up again."""


class ScreenshotFiles:
    """Files ``screenshots/ab/ab….png`` below the data directory, mode 0600."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._threads = ThreadPoolExecutor(2, "cambio-store-pictures")
        self._known: dict[str, None] = {}

    async def open(self) -> None:
        """Create the directory and remove what a crash left half written."""
        await self._in_thread(self._open)

    async def put(self, data: bytes, media_type: str = "image/png") -> str:
        """Keep a picture; its digest, once the file is on disk under its name.

        Raises ``ValueError`` for an unknown media type and :class:`StoreUnavailable` when the disk does not take it.
        """
        suffix = MEDIA_TYPES.get(media_type)
        if suffix is None:
            raise ValueError(f"not a picture: {media_type}")
        return await self._in_thread(lambda: self._put(data, suffix))

    def path(self, sha256: str) -> Path | None:
        """Where the picture lies, or ``None``; anything but 64 hex digits is ``None`` too. One ``stat`` or three."""
        if not _SHA256.fullmatch(sha256):
            return None
        return next((path for suffix in MEDIA_TYPES.values() if (path := self._place(sha256, suffix)).is_file()), None)

    async def read(self, sha256: str) -> tuple[bytes, str] | None:
        """The picture's bytes and media type, or ``None``."""
        return await self._in_thread(lambda: self.read_now(sha256))

    def read_now(self, sha256: str) -> tuple[bytes, str] | None:
        """:meth:`read` for a caller that is in a thread already."""
        path = self.path(sha256)
        if path is None:
            return None
        return path.read_bytes(), next(media for media, suffix in MEDIA_TYPES.items() if suffix == path.suffix)

    async def sweep(self, keep: Iterable[str]) -> int:
        """Remove every picture whose digest is not in ``keep``; the bytes that this freed."""
        wanted = frozenset(keep)
        return await self._in_thread(lambda: self._sweep(wanted))

    async def disk_bytes(self) -> int:
        """What the pictures take on disk."""
        return await self._in_thread(lambda: sum(path.stat().st_size for path in self._files()))

    async def sizes(self) -> dict[str, int]:
        """Bytes of every picture by its digest."""
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
            raise StoreUnavailable("The store cannot reach its pictures.", hint="See the server's log.") from error

    def _place(self, sha256: str, suffix: str) -> Path:
        return self._directory / sha256[:2] / f"{sha256}{suffix}"

    def _open(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._directory.glob("*/.writing-*"):
            left.unlink()

    def _put(self, data: bytes, suffix: str) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in self._known:
            return sha256
        path = self._place(sha256, suffix)
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _write(path, data)
        if len(self._known) >= _REMEMBERED:
            self._known.pop(next(iter(self._known)), None)
        self._known[sha256] = None
        return sha256

    def _files(self) -> list[Path]:
        return [path for path in self._directory.glob("??/*") if not path.name.startswith(".")]

    def _sweep(self, keep: frozenset[str]) -> int:
        freed = 0
        for path in self._files():
            if path.stem not in keep:
                freed += path.stat().st_size
                self._known.pop(path.stem, None)
                path.unlink()
        return freed


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
