"""SQLite's errors in our words, the search for damage, and what to do with a damaged file."""

from __future__ import annotations

import datetime
import sqlite3
import time
from pathlib import Path

from cambio_lab.errors import StoreCorrupt, StoreError, StoreUnavailable

CHECKED_AT_START = 64 * 1024 * 1024
"""A larger file is checked for damage where it is used, not from end to end before the server starts."""
READ_AT_START = ("sessions", "session_counts")
"""Tables that are checked in a file of any size: small, and nothing works without them."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def suspicion(path: Path) -> Path:
    """The empty file beside the database that says: a run met damage, look at all of it."""
    return path.with_name(f"{path.name}.check")


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise :class:`StoreCorrupt` for damage: anywhere if the file is small or suspected, else where a start reads."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if suspicion(path).exists():
        _verify(connection, "integrity_check(1)")
        suspicion(path).unlink()
    elif path.stat().st_size <= CHECKED_AT_START:
        _verify(connection, "quick_check(1)")
    else:
        for table in sorted(tables & set(READ_AT_START)):
            _verify(connection, f"quick_check({table})")


def _verify(connection: sqlite3.Connection, check: str) -> None:
    (verdict,) = connection.execute(f"PRAGMA {check}").fetchone()
    if verdict != "ok":
        raise StoreCorrupt(f"The database is damaged: {verdict}")


def translate(error: Exception) -> Exception:
    """SQLite's words as ours. The original is the cause, for the log; its text never reaches a client."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None or not isinstance(error, sqlite3.DatabaseError):
        return error
    primary = code & 0xFF
    found: StoreError
    if primary in _DAMAGED:
        found = StoreCorrupt("The database is damaged.", hint="Restart the server: it sets the file aside.")
    elif primary in _REASONS:
        reason, hint = _REASONS[primary]
        found = StoreUnavailable(f"The store cannot take this now: {reason}.", hint=hint)
    else:
        return error
    found.__cause__ = error
    return found


_REASONS = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Free some space; the server goes on by itself."),
    sqlite3.SQLITE_IOERR: ("the disk does not take it", "See the server's log."),
    sqlite3.SQLITE_BUSY: ("another program holds the database", "Close it; the server goes on by itself."),
    sqlite3.SQLITE_LOCKED: ("another program holds the database", "Close it; the server goes on by itself."),
    sqlite3.SQLITE_READONLY: ("the database is read-only", "Make it writable for the server's user."),
    sqlite3.SQLITE_CANTOPEN: ("the database cannot be opened", "See the server's log."),
}


def set_aside(path: Path) -> Path:
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
