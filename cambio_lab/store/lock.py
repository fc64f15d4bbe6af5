"""One server per data directory: an advisory lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from cambio_lab.errors import DirectoryInUse


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
        """Idempotent. The file stays: removing it would let a third process lock a file that nobody else sees."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
