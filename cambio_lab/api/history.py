"""Chat history and the steps behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest, SessionNotFound
from .failure import timestamp
from .listing import FARTHEST, after, choice, limits, moment, order, page, whole
from .rest import Rest

if TYPE_CHECKING:
    from ..store import MessageRow

ROLES = ("user", "assistant")


class History(Rest):
    """``/sessions/{session_id}/history``"""

    methods = ("GET", "HEAD", "DELETE")

    async def get(self, session_id: str) -> None:
        """One page, in the order of the conversation unless ``sort=timestamp:desc``."""
        store = await self.services.store()
        from ..store import MessageQuery  # loaded by the start hook, off the loop

        limit, offset = limits(self, 100)
        sort = order(self, ("created_at", "timestamp"))
        query = MessageQuery(
            role=choice(self, "role", ROLES),  # type: ignore[arg-type]
            created_after=after(self, "created_after"),
            created_before=moment(self, "created_before"),
            newest_first=bool(sort) and not sort[0][1],
            limit=limit,
            offset=offset,
        )
        found = await store.messages.page(session_id, query)
        if not found.total and await store.sessions.get(session_id) is None:
            raise SessionNotFound(f"There is no session {session_id[:60]!r}.")
        rows = [message(row) for row in found.rows]
        body = page("messages", rows, found.total, limit, offset)
        self.write_json({**body, "session_id": session_id})

    async def delete(self, session_id: str) -> None:
        """Forget the conversation, the agent's memory of it included."""
        registry = await self.services.registry()
        cleared = await (await registry.find(session_id)).clear_history()
        self.write_json({"message": "Chat history cleared", "session_id": session_id, "cleared_messages": cleared})


class Events(Rest):
    """``/sessions/{session_id}/events``: the whole story by sequence, as ``/ws/{session_id}`` told it."""

    async def get(self, session_id: str) -> None:
        limit, position = limits(self, 100)[0], whole(self, "after", 0, least=0)
        store = await self.services.store()
        row = await store.sessions.get(session_id)
        if row is None:
            raise SessionNotFound(f"There is no session {session_id[:60]!r}.")
        found = await store.events.after(session_id, min(position, FARTHEST), stream=False, limit=limit)
        last = found[-1][0] if found else position
        told = ",".join(f'{body[:-1]},"sequence":{sequence}}}' for sequence, body in found)
        rest = {"session_id": session_id, "after": position, "limit": limit, "last_sequence": row.last_sequence}
        rest["has_next"] = bool(found) and last < row.last_sequence
        self.set_header("Content-Type", "application/json")
        self.finish(f'{{"events":[{told}],{json.dumps(rest)[1:]}')


def message(row: MessageRow) -> dict[str, Any]:
    """A stored message as documented."""
    return {
        "id": row.id,
        "role": row.role,
        "content": row.content,
        "timestamp": timestamp(row.created_at),
        "sequence": row.sequence,
        "metadata": row.metadata,
    }


class Clipboard(Rest):
    """``/sessions/{session_id}/clipboard``"""

    methods = ("GET", "HEAD", "PUT")

    async def get(self, session_id: str) -> None:
        registry = await self.services.registry()
        desktop = (await registry.find(session_id)).desktop
        self.write_json({"text": await desktop.get_clipboard()})

    async def put(self, session_id: str) -> None:
        text = self.json_object(allowed=frozenset({"text"})).get("text")
        if not isinstance(text, str):
            raise InvalidRequest("text must be a string.", details={"text": "must be a string"})
        registry = await self.services.registry()
        await (await registry.find(session_id)).desktop.set_clipboard(text)
        self.write_json({"text": text})
