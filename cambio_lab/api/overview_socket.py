"""``/ws``: the states of all sessions, thumbnails of those that a client watches, and commands to any of them."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from ..errors import CambioError, SessionNotFound
from . import messages
from .failure import timestamp
from .services import Thumbnails
from .socket import CONTROLS, EventSocket, unknown_type

if TYPE_CHECKING:
    from ..sessions import Registry, SessionFeed

PERIOD = 1.0
"""Seconds between looks at the watched desktops."""


class OverviewSocket(EventSocket):
    """Each session's newest state: first all that live, then whichever changes. A slow reader misses states between."""

    what = "the WebSocket of all sessions"
    registry: Registry
    watch: SessionFeed | None = None

    async def admit(self) -> None:  # type: ignore[override]
        self.registry = await self.services.registry()
        self.watch = self.registry.watch()
        self.watched: tuple[str, ...] = ()
        self.width = 240
        self.looks: asyncio.Task[None] | None = None

    def released(self) -> None:
        if self.watch is not None:
            self.watch.close()
            if self.looks is not None:
                self.looks.cancel()

    def open(self) -> None:
        self.start(self._pump)

    async def _pump(self) -> None:
        assert self.watch is not None
        async for session in self.watch:
            await self.send(self._summary(session))
        self.close(1001, "The server is going down")

    def _summary(self, session: dict[str, Any]) -> messages.Body:
        shown = ("name", "model", "created_at", "ended_at", "end_reason", "steps", "usage", "desktop", "display")
        metadata = {"event": "summary", "session_status": session["status"], "viewer": session["control"]}
        metadata |= {name: session.get(name) for name in shown}
        content = session["state"].replace("_", " ")
        if (progress := session.get("progress")) is not None:
            content = progress["text"]
            metadata |= {"event": "progress", "fraction": progress["fraction"]}
        try:
            now = self.registry.get(session["id"]).snapshot_status()
        except CambioError:  # it has ended: the row says all there is to say
            pass
        else:
            content = now["content"]
            metadata |= {name: now["metadata"].get(name) for name in ("approval", "message_id")}
        return {
            "type": "status",
            "session_id": session["id"],
            "status": session["state"],
            "content": content,
            "metadata": metadata,
            "timestamp": timestamp(),
        }

    async def handle(self, body: dict[str, Any]) -> None:
        kind = body.get("type")
        if kind == "watch":
            self._watch(body)
        elif kind in CONTROLS:
            if not isinstance(session_id := body.get("session_id"), str):
                raise SessionNotFound("Which session? Send its session_id.")
            await self.control(self.registry.get(session_id), body, f"overview-{self.request_id}")
        else:
            raise unknown_type(kind, ["watch", *CONTROLS])

    def _watch(self, body: dict[str, Any]) -> None:
        from .schemas import requests  # loaded by the start hook, off the loop

        wanted = requests.parse(requests.Watch, body)
        self.watched, self.width = tuple(dict.fromkeys(wanted.sessions)), wanted.width
        if self.watched and self.looks is None:
            self.looks = asyncio.create_task(self._quietly(self._look), name="thumbnails")

    async def _look(self) -> None:
        """Send each watched desktop's thumbnail whenever it has changed, one after the other."""
        thumbnails = self.services.thumbnails
        sent: dict[str, str] = {}
        while True:
            for session_id in self.watched:
                data = await self._thumbnail(thumbnails, session_id)
                if data is not None and sent.get(session_id) != data:
                    sent[session_id] = data
                    image = f"data:image/jpeg;base64,{data}"
                    now = timestamp()
                    await self.send({"type": "thumbnail", "session_id": session_id, "image": image, "timestamp": now})
            sent = {session_id: data for session_id, data in sent.items() if session_id in self.watched}
            await asyncio.sleep(PERIOD)

    async def _thumbnail(self, thumbnails: Thumbnails, session_id: str) -> str | None:
        try:
            data = await thumbnails.get(self.registry.get(session_id).desktop, self.width)
        except CambioError:  # ended, or its desktop is away for a moment: the status says so
            return None
        return base64.b64encode(data).decode("ascii")
