"""The conversation: as people read it (messages) and as the model is sent it (transcript, screenshots as files)."""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from .database import Database, Operation
from .screenshots import MEDIA_TYPES, ScreenshotFiles, name_screenshots
from .sessions import Columns, Page, execute, select

Message = dict[str, Any]
_STORED_AS_FILE = "cambio_picture"
Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One message. ``created_at`` is in epoch seconds and never goes back within a session."""

    id: str
    session_id: str
    role: Role
    content: str
    created_at: float
    metadata: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    sequence: int | None = None
    """The number of the event that told of it; ``None`` in records of older versions."""


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Which messages of a session. Times are exclusive, in epoch seconds."""

    role: Role | None = None
    created_after: float | None = None
    created_before: float | None = None
    newest_first: bool = False
    limit: int = 100
    offset: int = 0


class MessageTable:
    """The ``messages`` table. A page costs the same wherever it lies: positions are ranges of an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self, session_id: str, role: Role, content: str, metadata: Mapping[str, Any] | None = None, *, time: float
    ) -> MessageRow:
        """Add a message at the end; on disk when this returns."""
        return await self._database.write(self.appending(new_message_id(), session_id, role, content, metadata, time))

    def appending(
        self,
        message_id: str,
        session_id: str,
        role: Role,
        content: str,
        metadata: Mapping[str, Any] | None,
        time: float,
    ) -> Operation[MessageRow]:
        row = MessageRow(message_id, session_id, role, content, time, dict(metadata or {}))
        return partial(_append_message, row)

    async def page(self, session_id: str, query: MessageQuery) -> Page[MessageRow]:
        """Oldest first unless the query says otherwise; messages that arrive meanwhile move no row of a page."""
        return await self._database.read(partial(_page, session_id, query))

    def clearing(self, session_id: str) -> Operation[int]:
        """Remove the session's messages; the result is how many there were."""
        return partial(_clear_messages, session_id)


def new_message_id() -> str:
    return f"msg-{uuid.uuid4()}"


_MESSAGE = Columns(MessageRow, "messages", json=("metadata",))


def _append_message(row: MessageRow, connection: sqlite3.Connection) -> MessageRow:
    counts = connection.execute(
        f"UPDATE sessions SET message_count = message_count + 1, {row.role}_count = {row.role}_count + 1"
        f" WHERE id = ? RETURNING message_count, {row.role}_count, last_sequence",
        (row.session_id,),
    ).fetchall()
    if not counts:
        raise ValueError(f"no session {row.session_id}")
    position, role_position, sequence = counts[0]
    before = connection.execute(
        "SELECT created_at FROM messages WHERE session_id = ? AND position = ?", (row.session_id, position - 1)
    ).fetchone()
    time = max(row.created_at, before[0]) if before else row.created_at  # the clock may have been set back
    row = replace(row, created_at=time, position=position, sequence=sequence)
    sql = f"INSERT INTO messages ({_MESSAGE.columns}, role_position) VALUES ({_MESSAGE.marks}, ?)"
    connection.execute(sql, (*_MESSAGE.encode(row), role_position))
    return row


def _page(session_id: str, query: MessageQuery, connection: sqlite3.Connection) -> Page[MessageRow]:
    place = "role_position" if query.role else "position"
    scope, values = (
        ("session_id = ? AND role = ?", (session_id, query.role)) if query.role else ("session_id = ?", (session_id,))
    )
    first, last = _bounds(session_id, query, place, scope, values, connection)
    total = max(0, last - first + 1)
    if query.newest_first:
        high = last - query.offset
        low, order = max(first, high - query.limit + 1), "DESC"
    else:
        low = first + query.offset
        high, order = min(last, low + query.limit - 1), "ASC"
    which = f"WHERE {scope} AND {place} BETWEEN ? AND ? ORDER BY {place} {order}"
    return Page(_MESSAGE.find(which, *values, low, high)(connection), total)


def _bounds(
    session_id: str,
    query: MessageQuery,
    place: str,
    scope: str,
    values: tuple[Any, ...],
    connection: sqlite3.Connection,
) -> tuple[int, int]:
    """First and last position that match: times never go back, so a span of time is a span of positions."""
    counter = f"{query.role}_count" if query.role else "message_count"
    found = connection.execute(f"SELECT {counter} FROM sessions WHERE id = ?", (session_id,)).fetchone()
    first, last = 1, found[0] if found else 0
    if query.created_after is not None:
        sql = f"SELECT max({place}) FROM messages WHERE {scope} AND created_at = ("
        sql += f"SELECT max(created_at) FROM messages WHERE {scope} AND created_at <= ?)"
        (before,) = connection.execute(sql, (*values, *values, query.created_after)).fetchone()
        first = (before or 0) + 1
    if query.created_before is not None:
        sql = f"SELECT min({place}) FROM messages WHERE {scope} AND created_at = ("
        sql += f"SELECT min(created_at) FROM messages WHERE {scope} AND created_at >= ?)"
        (after,) = connection.execute(sql, (*values, *values, query.created_before)).fetchone()
        last = last if after is None else after - 1
    return first, last


def _clear_messages(session_id: str, connection: sqlite3.Connection) -> int:
    removed = connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,)).rowcount
    connection.execute(
        "UPDATE sessions SET message_count = 0, user_count = 0, assistant_count = 0 WHERE id = ?", (session_id,)
    )
    return removed


class TranscriptTable:
    """The ``transcript`` table. What is loaded equals what was appended, to the byte."""

    def __init__(self, database: Database, screenshots: ScreenshotFiles) -> None:
        self._database = database
        self._screenshots = screenshots

    async def appending(self, session_id: str, message: Message) -> Operation[Any]:
        """Put the message's screenshots on disk; return the operation that adds the message itself."""
        digests: list[str] = []
        stored = await _map_images(message, partial(self._put, digests))
        text = json.dumps(stored, separators=(",", ":"), ensure_ascii=False)
        return partial(_append_transcript, session_id, text, tuple(digests))

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


def _append_transcript(session_id: str, text: str, digests: tuple[str, ...], connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO transcript (session_id, position, message)"
        " SELECT ?, coalesce(max(position), 0) + 1, ? FROM transcript WHERE session_id = ?",
        (session_id, text, session_id),
    )
    name_screenshots(session_id, digests, connection)
