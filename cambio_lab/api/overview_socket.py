"""``/ws``: the states of all sessions, small pictures of those that somebody looks at, and commands to any of them."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from ..errors import CambioError, InvalidRequest, SessionNotFound
from . import messages
from .agent_socket import EventSocket, unknown_type
from .failure import timestamp
from .strict_json import short_text
from .thumbnails import Thumbnails

if TYPE_CHECKING:
    from ..sessions import Registry, SessionFeed

COMMANDS = ("stop", "pause", "resume", "approve", "deny", "take_control", "give_back")
MOST_WATCHED = 100
WIDTHS = (16, 640)
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
        elif isinstance(kind, str) and kind in COMMANDS:
            await self._command(kind, body)
        else:
            raise unknown_type(kind, ["watch", *COMMANDS])

    async def _command(self, kind: str, body: dict[str, Any]) -> None:
        session_id = short_text(body, "session_id")
        if session_id is None:
            raise SessionNotFound("Which session? Send its session_id.")
        session = self.registry.get(session_id)
        viewer = short_text(body, "viewer") or f"overview-{self.request_id}"
        if kind in ("approve", "deny"):
            await getattr(session, kind)(short_text(body, "tool_use_id"), by=viewer)
        elif kind in ("take_control", "give_back"):
            await getattr(self, kind)(session, viewer)
        elif kind == "stop":
            await session.stop(short_text(body, "message_id"))
        else:
            await getattr(session, kind)()

    def _watch(self, body: dict[str, Any]) -> None:
        sessions, width = body.get("sessions"), body.get("width", 240)
        if not isinstance(sessions, list) or not all(isinstance(one, str) for one in sessions):
            raise InvalidRequest("sessions must be a list of ids.", details={"sessions": "a list of ids"})
        if len(sessions) > MOST_WATCHED:
            raise InvalidRequest(f"At most {MOST_WATCHED} sessions can be watched.", details={"sessions": "too many"})
        if isinstance(width, bool) or not isinstance(width, int) or not WIDTHS[0] <= width <= WIDTHS[1]:
            raise InvalidRequest("width must be a number of pixels.", details={"width": f"{WIDTHS[0]} to {WIDTHS[1]}"})
        self.watched, self.width = tuple(dict.fromkeys(sessions)), width
        if self.watched and self.looks is None:
            self.looks = asyncio.create_task(self._quietly(self._look), name="thumbnails")

    async def _look(self) -> None:
        """Send each watched desktop's picture whenever it has changed; one after the other, never in a hurry."""
        thumbnails = self.services.thumbnails
        sent: dict[str, str] = {}
        while True:
            for session_id in self.watched:
                picture = await self._picture(thumbnails, session_id)
                if picture is not None and sent.get(session_id) != picture:
                    sent[session_id] = picture
                    image = f"data:image/jpeg;base64,{picture}"
                    now = timestamp()
                    await self.send({"type": "thumbnail", "session_id": session_id, "image": image, "timestamp": now})
            sent = {session_id: picture for session_id, picture in sent.items() if session_id in self.watched}
            await asyncio.sleep(PERIOD)

    async def _picture(self, thumbnails: Thumbnails, session_id: str) -> str | None:
        try:
            data = await thumbnails.of(self.registry.get(session_id).desktop, self.width)
        except CambioError:  # ended, or its desktop is away for a moment: the status says so
            return None
        return base64.b64encode(data).decode("ascii")
