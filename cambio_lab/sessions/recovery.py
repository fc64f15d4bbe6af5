"""After a crash: the conversation as the service will accept it, and the turn that nobody ended."""

from __future__ import annotations

from typing import Any

from cambio_lab.agent.transcript import close_open_batch
from cambio_lab.store import Store


async def stored_conversation(store: Store, session_id: str) -> list[dict[str, Any]]:
    """What is stored, with calls that were never answered closed as interrupted, on disk as well."""
    history = await store.transcript.load(session_id)
    closed = close_open_batch(history)
    if added := closed[len(history) :]:
        await store.write(*[await store.transcript.appending(session_id, message) for message in added])
    return closed
