"""The schema, one step after another. A step that was released is never edited: add another."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to the newest schema; each step commits together with the record that it ran."""
    from sqlite_utils import Database  # 90 ms: on the writer's thread, not in the server's start

    _migrations().apply(Database(connection))


@cache
def _migrations() -> Migrations:
    from sqlite_utils.migrations import Migrations

    migrations = Migrations("cambio_lab")
    for step in STEPS:
        migrations(name=step.__name__)(step)
    return migrations


def m001_sessions(db: Database) -> None:
    """Sessions, and how many there are of each status: a listing needs the total without counting rows."""
    db.table("sessions").create(
        {
            "number": int,
            "id": str,
            "name": str,
            "status": str,
            "created_at": float,
            "ended_at": float,
            "end_reason": str,
            "config": str,
            "model": str,
            "desktop_kind": str,
            "desktop_id": str,
            "container_id": str,
            "vnc_port": int,
            "steps": int,
            "usage": str,
            "turn_message_id": str,
            "user_messages": int,
            "last_sequence": int,
            "last_stream_sequence": int,
            "message_count": int,
            "user_count": int,
            "assistant_count": int,
        },
        pk="number",
        not_null={"id", "name", "status", "created_at", "config", "usage"},
        defaults={
            "steps": 0,
            "user_messages": 0,
            "last_sequence": 0,
            "last_stream_sequence": 0,
            "message_count": 0,
            "user_count": 0,
            "assistant_count": 0,
        },
    )
    db.table("sessions").create_index(["id"], unique=True)
    db.table("sessions").create_index(["created_at", "number"])
    db.table("sessions").create_index(["status", "created_at", "number"])
    db.table("session_counts").create({"status": str, "sessions": int}, pk="status")
    db.conn.execute("""
        CREATE TRIGGER session_added AFTER INSERT ON sessions BEGIN
            INSERT INTO session_counts VALUES (new.status, 1)
            ON CONFLICT (status) DO UPDATE SET sessions = sessions + 1;
        END""")
    db.conn.execute("""
        CREATE TRIGGER session_changed AFTER UPDATE OF status ON sessions WHEN old.status <> new.status BEGIN
            UPDATE session_counts SET sessions = sessions - 1 WHERE status = old.status;
            INSERT INTO session_counts VALUES (new.status, 1)
            ON CONFLICT (status) DO UPDATE SET sessions = sessions + 1;
        END""")
    db.conn.execute("""
        CREATE TRIGGER session_removed AFTER DELETE ON sessions BEGIN
            UPDATE session_counts SET sessions = sessions - 1 WHERE status = old.status;
        END""")


def m002_conversation(db: Database) -> None:
    """What people read (messages) and what the model is sent (transcript).

    ``position`` counts a session's messages from 1, ``role_position`` those of one role: a page is a range of an
    index wherever it lies.
    """
    db.table("messages").create(
        {
            "id": str,
            "session_id": str,
            "position": int,
            "role": str,
            "role_position": int,
            "content": str,
            "created_at": float,
            "metadata": str,
        },
        pk=("session_id", "position"),
        not_null={"id", "role", "role_position", "content", "created_at", "metadata"},
    )
    db.table("messages").create_index(["session_id", "role", "role_position"], unique=True)
    db.table("messages").create_index(["session_id", "created_at"])
    db.table("messages").create_index(["session_id", "role", "created_at"])
    db.table("transcript").create(
        {"session_id": str, "position": int, "message": str}, pk=("session_id", "position"), not_null={"message"}
    )


def m003_record(db: Database) -> None:
    """The story of a session: tool calls, what sockets were sent, requests to the model and their replies."""
    db.table("steps").create(
        {
            "session_id": str,
            "step": int,
            "tool_use_id": str,
            "tool": str,
            "toolset": str,
            "arguments": str,
            "status": str,
            "started_at": float,
            "ended_at": float,
            "text": str,
            "timing": str,
            "sha256": str,
            "media_type": str,
            "width": int,
            "height": int,
        },
        pk=("session_id", "step"),
        not_null={"tool_use_id", "tool", "arguments", "status", "started_at"},
    )
    db.table("events").create(
        {
            "id": int,
            "session_id": str,
            "sequence": int,
            "stream_sequence": int,
            "time": float,
            "kind": str,
            "body": str,
            "record": str,
        },
        pk="id",
        not_null={"session_id", "time", "kind"},
    )
    db.conn.execute(
        "CREATE UNIQUE INDEX events_stream ON events (session_id, stream_sequence) WHERE stream_sequence IS NOT NULL"
    )
    db.conn.execute("CREATE UNIQUE INDEX events_plain ON events (session_id, sequence) WHERE sequence IS NOT NULL")
    db.conn.execute("CREATE INDEX events_record ON events (session_id, id) WHERE record IS NOT NULL")
    db.table("exchanges").create(
        {
            "session_id": str,
            "number": int,
            "started_at": float,
            "request_sha256": str,
            "request": bytes,
            "status": int,
            "headers": str,
            "response": bytes,
            "first_byte_ms": float,
            "total_ms": float,
            "error": str,
        },
        pk=("session_id", "number"),
        not_null={"started_at", "request_sha256", "request"},
    )


def m004_said(db: Database) -> None:
    """What the agent said before an action, and what the reply cost that asked for it."""
    db.conn.execute("ALTER TABLE steps ADD COLUMN said TEXT NOT NULL DEFAULT ''")
    db.conn.execute("ALTER TABLE steps ADD COLUMN cost_usd REAL")


def m005_order_and_size(db: Database) -> None:
    """Where messages and steps stand among a session's events; how large its record is, and whether it is kept."""
    db.conn.execute("ALTER TABLE messages ADD COLUMN sequence INTEGER")
    db.conn.execute("ALTER TABLE steps ADD COLUMN sequence INTEGER")
    db.conn.execute("ALTER TABLE sessions ADD COLUMN record_bytes INTEGER NOT NULL DEFAULT 0")
    db.conn.execute("ALTER TABLE sessions ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0")


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


STEPS = (m001_sessions, m002_conversation, m003_record, m004_said, m005_order_and_size, m006_screenshots)
