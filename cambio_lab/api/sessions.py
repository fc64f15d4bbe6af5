"""Sessions: create, list, describe, change, end."""

from __future__ import annotations

from typing import Any

from prometheus_client import Counter, Histogram

from ..errors import InvalidRequest
from ..recording.walls import check_tags
from .base import Guarded
from .rest import Rest, list_body

SESSIONS_CREATED = Counter("cambio_lab_sessions_created_total", "Sessions created")
CREATE_SECONDS = Histogram(
    "cambio_lab_session_create_seconds",
    "Time until a new session's desktop is usable",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
SORT_KEYS = ("created_at", "ended_at", "id", "model", "name", "status", "steps")
STATUSES = ("active", "inactive", "error")
LISTED = (
    *("id", "name", "status", "created_at", "ended_at", "end_reason", "model", "desktop", "steps", "usage"),
    *("record_bytes", "pinned", "tags", "note"),
)


def addresses(handler: Guarded, session_id: str) -> dict[str, str]:
    """The documented addresses of a session, with the server's base URL."""
    return {"vnc_url": handler.url("vnc", session_id), "websocket_url": handler.url("ws", session_id)}


def described(handler: Guarded, body: dict[str, Any]) -> dict[str, Any]:
    """A session's body as ``GET /sessions/{id}`` returns it."""
    return {"id": body["id"], "status": body["status"], **addresses(handler, body["id"]), **body}


class Sessions(Rest):
    """``/sessions``"""

    methods = ("GET", "HEAD", "POST")
    post_limits = ("create",)

    async def get(self) -> None:
        """One page, newest first."""
        registry = await self.services.registry()
        from ..store import SessionQuery  # loaded by the start hook, off the loop

        limit, offset = self.page(50)
        query = SessionQuery(
            status=self.one_of("status", STATUSES),
            created_after=self.time_after("created_after"),
            created_before=self.time_argument("created_before"),
            sort=tuple(self.sorting(SORT_KEYS)) or (("created_at", False),),
            limit=limit,
            offset=offset,
        )
        found = await registry.store.sessions.page(query)
        rows = []
        for row in found.rows:  # but for the config, which may be long, with what the session does now
            told = row.describe()
            state = {"state": registry.state_of(row.id) or told["state"]}
            rows.append({name: told[name] for name in LISTED} | state | addresses(self, row.id))
        self.write_json(list_body("sessions", rows, found.total, limit, offset))

    async def post(self) -> None:
        """Create; answers when the desktop is usable."""
        body = self.json_object(optional=True)
        if unknown := sorted(body.keys() - {"name", "config"}):
            raise InvalidRequest("The body has unknown keys.", details=dict.fromkeys(unknown[:20], "unknown"))
        name, config = body.get("name"), body.get("config")
        if config is not None and not isinstance(config, dict):
            raise InvalidRequest("config must be an object.", details={"config": "must be an object"})
        config = config or {}
        # Who runs the server decides how well sessions are sealed; only ``auto`` leaves the choice to others.
        offered = self.services.settings.desktop
        if offered != "auto" and config.get("desktop") not in (None, "auto", offered):
            problem = {"config.desktop": f"this server offers {offered} only"}
            raise InvalidRequest(f"This server offers {offered} desktops only.", details=problem)
        await self.while_connected(self._create(name, config))

    async def _create(self, name: object, config: dict[str, Any]) -> None:
        """Create a session for the waiting client; undo the creation when the client has left."""
        registry = await self.services.registry()
        with CREATE_SECONDS.time():
            session = await registry.create(name, config)  # type: ignore[arg-type]
        if self.client_left:  # while the last step of the creation was on its way
            await registry.end(session.id, "The client left before the session was ready")
            return
        SESSIONS_CREATED.inc()
        self.write_json(described(self, session.describe()))


class OneSession(Rest):
    """``/sessions/{session_id}``"""

    methods = ("GET", "HEAD", "PATCH", "DELETE")
    unlimited = frozenset({"DELETE"})

    async def get(self, session_id: str) -> None:
        registry = await self.services.registry()
        self.write_json(described(self, await registry.describe(session_id)))

    async def patch(self, session_id: str) -> None:
        """Change ``name``, ``approval``, ``display``, ``pinned``, ``tags`` or ``note``; what is not named stays."""
        registry = await self.services.registry()
        from . import schemas  # loaded by the start hook, off the loop

        changes = self.parse(schemas.SessionChange).model_dump(exclude_unset=True)
        said = {name: changes.pop(name, None) for name in ("pinned", "tags", "note")}
        said = {name: value for name, value in said.items() if value is not None}
        if said.get("tags"):
            said["tags"] = check_tags(said["tags"])
        if changes or not said:
            session = await registry.find(session_id)
            await session.change(**changes)
        if said:
            await registry.annotate(session_id, **said)
        self.write_json(described(self, await registry.describe(session_id)))

    async def delete(self, session_id: str) -> None:
        """End it and free its desktop."""
        registry = await self.services.registry()
        ended = await registry.end(session_id)
        told = {"message": "Session ended successfully", "session_id": session_id}
        self.write_json({**told, "ended_at": ended["ended_at"]})


class Answer(Rest):
    """``/sessions/{session_id}/answer``: for a program that heard of a question by the webhook."""

    methods = ("POST",)

    async def post(self, session_id: str) -> None:
        """Answer the agent's question, or hand the desktop back."""
        session = await self.find(session_id)
        from . import schemas  # loaded by the start hook, off the loop

        given = self.parse(schemas.AnswerQuestion)
        await session.answer(given.text, given.tool_use_id, by="rest")
        self.write_json({"session_id": session_id, "state": session.snapshot_status()["status"]})


class Stop(Rest):
    """``/sessions/{session_id}/stop``: for a client whose WebSocket is down."""

    methods = ("POST",)
    unlimited = frozenset({"POST"})

    async def post(self, session_id: str) -> None:
        """End the running turn; without one, nothing happens."""
        session = await self.find(session_id)
        from . import schemas  # loaded by the start hook, off the loop

        turn = self.parse(schemas.StopTurn, optional=True)
        await session.stop(turn.message_id)
        self.write_json({"session_id": session_id, "state": session.snapshot_status()["status"]})
