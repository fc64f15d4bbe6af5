"""The schema, one step after another, and what becomes of a damaged database. A released step is never edited."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambio_lab.errors import StoreCorrupt, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from sqlite_utils import Database


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest schema; each step commits together with the record that it ran."""
    from sqlite_utils import Database  # 90 ms: on the writer's thread, not in the server's start
    from sqlite_utils.migrations import Migrations

    migrations = Migrations("cambio_lab")
    for name, step in STEPS.items():
        run: Any = partial(_run, step) if isinstance(step, str) else step
        migrations(name=name)(run)
    migrations.apply(Database(connection))


def _run(script: str, db: Database) -> None:
    """Execute one statement after the other: ``executescript`` would commit each."""
    for statement in script.split("\n\n"):
        db.conn.execute(statement)


def m006_screenshots(db: Database) -> None:
    """Which session names which screenshots: pruning need not read whole records."""
    db.conn.execute(
        "CREATE TABLE session_screenshots"
        " (session_id TEXT, sha256 TEXT, PRIMARY KEY (session_id, sha256)) WITHOUT ROWID"
    )
    insert = "INSERT OR IGNORE INTO session_screenshots VALUES (?, ?)"
    named = re.compile(r'"(?:image|sha256)":"([0-9a-f]{64})"')
    for sql in (
        "SELECT session_id, record FROM events WHERE record IS NOT NULL",
        "SELECT session_id, message FROM transcript",
    ):
        for session_id, text in db.conn.execute(sql):
            db.conn.executemany(insert, [(session_id, digest) for digest in named.findall(text)])
    db.conn.execute(
        "INSERT OR IGNORE INTO session_screenshots SELECT session_id, sha256 FROM steps WHERE sha256 IS NOT NULL"
    )
    rows = db.conn.execute("SELECT session_id, request FROM exchanges ORDER BY session_id, number")
    db.conn.executemany(insert, _references(rows))


def _references(exchanges: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, str]]:
    """Yield session and digest of the screenshots that requests refer to.

    A request is stored as its difference to the one before, so a digest may begin in what the two share.
    """
    before, session = b"", ""
    for session_id, request in exchanges:
        try:
            change = json.loads(request)
            base = before if change["base"] is not None and session_id == session else b""
            prefix, suffix = change["prefix"], change["suffix"]
            body = base[:prefix] + change["middle"].encode() + base[len(base) - suffix :]
        except (ValueError, TypeError, KeyError):
            continue  # not a request of ours; a replay refuses it, too
        for digest in re.findall(rb"\x01([0-9a-f]{64})", body[max(0, prefix - 64) : len(body) - max(0, suffix - 64)]):
            yield session_id, digest.decode()
        before, session = body, session_id


STEPS: dict[str, str | Callable[[Database], None]] = {
    # Sessions, and how many there are of each status: a listing needs the total without counting rows.
    "m001_sessions": """
        CREATE TABLE sessions (
            number INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, status TEXT NOT NULL,
            created_at REAL NOT NULL, ended_at REAL, end_reason TEXT, config TEXT NOT NULL, model TEXT,
            desktop_kind TEXT, desktop_id TEXT, container_id TEXT, vnc_port INTEGER,
            steps INTEGER DEFAULT 0, usage TEXT NOT NULL, turn_message_id TEXT, user_messages INTEGER DEFAULT 0,
            last_sequence INTEGER DEFAULT 0, last_stream_sequence INTEGER DEFAULT 0,
            message_count INTEGER DEFAULT 0, user_count INTEGER DEFAULT 0, assistant_count INTEGER DEFAULT 0)

        CREATE UNIQUE INDEX idx_sessions_id ON sessions (id)

        CREATE INDEX idx_sessions_created_at_number ON sessions (created_at, number)

        CREATE INDEX idx_sessions_status_created_at_number ON sessions (status, created_at, number)

        CREATE TABLE session_counts (status TEXT PRIMARY KEY, sessions INTEGER)

        CREATE TRIGGER session_added AFTER INSERT ON sessions BEGIN
            INSERT INTO session_counts VALUES (new.status, 1)
            ON CONFLICT (status) DO UPDATE SET sessions = sessions + 1;
        END

        CREATE TRIGGER session_changed AFTER UPDATE OF status ON sessions WHEN old.status <> new.status BEGIN
            UPDATE session_counts SET sessions = sessions - 1 WHERE status = old.status;
            INSERT INTO session_counts VALUES (new.status, 1)
            ON CONFLICT (status) DO UPDATE SET sessions = sessions + 1;
        END

        CREATE TRIGGER session_removed AFTER DELETE ON sessions BEGIN
            UPDATE session_counts SET sessions = sessions - 1 WHERE status = old.status;
        END""",
    # What people read (messages) and what the model is sent (transcript).
    # ``position`` counts a session's messages from 1, ``role_position`` those of one role: a page is a range of an
    # index wherever it lies.
    "m002_conversation": """
        CREATE TABLE messages (
            id TEXT NOT NULL, session_id TEXT, position INTEGER, role TEXT NOT NULL, role_position INTEGER NOT NULL,
            content TEXT NOT NULL, created_at REAL NOT NULL, metadata TEXT NOT NULL,
            PRIMARY KEY (session_id, position))

        CREATE UNIQUE INDEX idx_messages_session_id_role_role_position ON messages (session_id, role, role_position)

        CREATE INDEX idx_messages_session_id_created_at ON messages (session_id, created_at)

        CREATE INDEX idx_messages_session_id_role_created_at ON messages (session_id, role, created_at)

        CREATE TABLE transcript (
            session_id TEXT, position INTEGER, message TEXT NOT NULL, PRIMARY KEY (session_id, position))""",
    # The story of a session: tool calls, what sockets were sent, requests to the model and their replies.
    "m003_record": """
        CREATE TABLE steps (
            session_id TEXT, step INTEGER, tool_use_id TEXT NOT NULL, tool TEXT NOT NULL, toolset TEXT,
            arguments TEXT NOT NULL, status TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL, text TEXT,
            timing TEXT, sha256 TEXT, media_type TEXT, width INTEGER, height INTEGER,
            PRIMARY KEY (session_id, step))

        CREATE TABLE events (
            id INTEGER PRIMARY KEY, session_id TEXT NOT NULL, sequence INTEGER, stream_sequence INTEGER,
            time REAL NOT NULL, kind TEXT NOT NULL, body TEXT, record TEXT)

        CREATE UNIQUE INDEX events_stream ON events (session_id, stream_sequence) WHERE stream_sequence IS NOT NULL

        CREATE UNIQUE INDEX events_plain ON events (session_id, sequence) WHERE sequence IS NOT NULL

        CREATE INDEX events_record ON events (session_id, id) WHERE record IS NOT NULL

        CREATE TABLE exchanges (
            session_id TEXT, number INTEGER, started_at REAL NOT NULL, request_sha256 TEXT NOT NULL,
            request BLOB NOT NULL, status INTEGER, headers TEXT, response BLOB, first_byte_ms REAL, total_ms REAL,
            error TEXT, PRIMARY KEY (session_id, number))""",
    # What the agent said before an action, and what the reply cost that asked for it.
    "m004_said": """
        ALTER TABLE steps ADD COLUMN said TEXT NOT NULL DEFAULT ''

        ALTER TABLE steps ADD COLUMN cost_usd REAL""",
    # Where messages and steps stand among a session's events; how large its record is, and whether it is kept.
    "m005_order_and_size": """
        ALTER TABLE messages ADD COLUMN sequence INTEGER

        ALTER TABLE steps ADD COLUMN sequence INTEGER

        ALTER TABLE sessions ADD COLUMN record_bytes INTEGER NOT NULL DEFAULT 0

        ALTER TABLE sessions ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0""",
    "m006_screenshots": m006_screenshots,
    # Whether the agent or a person made a step.
    "m007_actor": """
        ALTER TABLE steps ADD COLUMN actor TEXT NOT NULL DEFAULT 'agent'""",
    # What people say of a run: tags and a note.
    "m008_annotations": """
        ALTER TABLE sessions ADD COLUMN tags TEXT NOT NULL DEFAULT '[]'

        ALTER TABLE sessions ADD COLUMN note TEXT NOT NULL DEFAULT ''""",
}
"""By name: statements with empty lines between them, or what runs them."""

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
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
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
