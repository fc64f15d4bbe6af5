"""The conversation as the model is sent it, message by message. Pictures are kept as files, each once."""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from .database import Database, Operation
from .screenshots import MEDIA_TYPES, ScreenshotFiles

Message = dict[str, Any]
_KEPT_AS_FILE = "cambio_picture"


class TranscriptTable:
    """The ``transcript`` table. What is loaded equals what was appended, to the byte."""

    def __init__(self, database: Database, pictures: ScreenshotFiles) -> None:
        self._database = database
        self._pictures = pictures

    async def append(self, session_id: str, message: Message) -> None:
        await self._database.write(await self.appending(session_id, message))

    async def appending(self, session_id: str, message: Message) -> Operation[None]:
        """Put the message's pictures on disk; the operation that adds the message itself."""
        text = json.dumps(await _map_images(message, self._put), separators=(",", ":"), ensure_ascii=False)
        return partial(_append, session_id, text)

    async def load(self, session_id: str) -> list[Message]:
        """The whole conversation, pictures inline again. A picture whose file is gone becomes a line of text."""
        texts = await self._database.read(partial(_load, session_id))
        return [await _map_images(json.loads(text), self._get) for text in texts]

    async def stored(self, session_id: str) -> list[Message]:
        """The conversation as it lies in the table: ``source`` of a picture is its digest and media type."""
        return [json.loads(text) for text in await self._database.read(partial(_load, session_id))]

    async def drop(self, session_id: str, count: int) -> None:
        await self._database.write(self.dropping(session_id, count))

    def dropping(self, session_id: str, count: int) -> Operation[None]:
        """Remove the last ``count`` messages."""
        return partial(_drop, session_id, count)

    async def clear(self, session_id: str) -> None:
        await self._database.write(self.clearing(session_id))

    def clearing(self, session_id: str) -> Operation[None]:
        return partial(_clear, session_id)

    async def _put(self, block: Message) -> Message:
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
        sha256 = await self._pictures.put(data, source["media_type"])
        return {**block, "source": {"type": _KEPT_AS_FILE, "sha256": sha256, "media_type": source["media_type"]}}

    async def _get(self, block: Message) -> Message:
        source = block.get("source")
        if not isinstance(source, dict) or source.get("type") != _KEPT_AS_FILE:
            return block
        found = await self._pictures.read(source["sha256"])
        if found is None:
            return {"type": "text", "text": "[the picture was removed]"}
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


def _append(session_id: str, text: str, connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO transcript (session_id, position, message)"
        " SELECT ?, coalesce(max(position), 0) + 1, ? FROM transcript WHERE session_id = ?",
        (session_id, text, session_id),
    )


def _load(session_id: str, connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT message FROM transcript WHERE session_id = ? ORDER BY position", (session_id,))
    return [text for (text,) in found]


def _drop(session_id: str, count: int, connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM transcript WHERE session_id = ? AND position > ("
        "SELECT max(position) FROM transcript WHERE session_id = ?) - ?",
        (session_id, session_id, count),
    )


def _clear(session_id: str, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM transcript WHERE session_id = ?", (session_id,))
