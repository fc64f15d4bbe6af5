"""``/ws``: the states of all sessions, the events of those that a client follows, thumbnails, and commands to any."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

from ..errors import CambioError, InvalidRequest, SessionNotFound
from ..events import timestamp
from . import messages, status_of
from .socket import CONTROLS, EventSocket, unknown_type

if TYPE_CHECKING:
    from ..sessions import SessionFeed, Subscription
    from ..sessions.registry import Registry
    from ..sessions.session import Session

PERIOD = 1.0
"""Seconds between looks at the watched desktops."""
MOST_FOLLOWED = 64
"""Sessions whose events one connection gets; each may hold ``queue_bytes`` for a slow reader."""
OVER, AWAY = 409, 503


class OverviewSocket(EventSocket):
    """One connection for a page: the newest state of every session, and every event of the sessions it follows.

    States (without ``sequence``) come first for all that live, then for whichever changes; a slow reader misses those
    in between. Events of followed sessions are those of ``/ws/{session_id}?stream=true``, with ``session_id`` added.
    """

    what = "the WebSocket of all sessions"
    registry: Registry
    watch: SessionFeed | None = None

    async def admit(self) -> None:  # type: ignore[override]
        self.registry = await self.services.registry()
        self.watch = self.registry.watch()
        self.watched: tuple[str, ...] = ()
        self.width = 240
        self.looks: asyncio.Task[None] | None = None
        self.followed: dict[str, Subscription] = {}
        self.followers: set[asyncio.Task[None]] = set()

    def released(self) -> None:
        if self.watch is not None:
            self.watch.close()
            if self.looks is not None:
                self.looks.cancel()
            for session_id in tuple(self.followed):
                self._close(session_id)
            for follower in self.followers:
                follower.cancel()

    async def pump(self) -> None:
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
            metadata |= {name: now["metadata"].get(name) for name in ("approval", "question", "message_id")}
        return {
            "type": "status",
            "session_id": session["id"],
            "status": session["state"],
            "content": content,
            "metadata": metadata,
            "timestamp": timestamp(),
        }

    async def handle(self, body: dict[str, Any]) -> None:
        kind = body.get("type", "message")
        if kind == "watch":
            self._watch(body)
            return
        if kind not in ("message", "follow", "unfollow", *CONTROLS):
            raise unknown_type(kind, ["watch", "follow", "unfollow", "message", *CONTROLS])
        if not isinstance(session_id := body.get("session_id"), str):
            raise SessionNotFound("Which session? Send its session_id.")
        if kind == "follow":
            await self._follow(session_id, body)
        elif kind == "unfollow":
            self._close(session_id)
            await self.leave(session_id)
        elif kind == "message":
            await self.message(self.registry.get(session_id), body)
        else:
            await self.control(self.registry.get(session_id), body, f"overview-{self.request_id}")

    async def _follow(self, session_id: str, body: dict[str, Any]) -> None:
        """Begin to send the session's events; what speaks against it is said, and the connection stays."""
        from . import schemas  # loaded by the start hook, off the loop

        after = schemas.parse(schemas.Follow, body).after
        self._close(session_id)
        try:
            if len(self.followed) >= MOST_FOLLOWED:
                raise InvalidRequest(f"One connection follows at most {MOST_FOLLOWED} sessions.")
            session = await self.registry.find(session_id)
            subscription = session.subscribe(after=after, stream=True)
        except CambioError as error:
            await self._unfollowed(session_id, status_of(error), error.describe())
            return
        self.followed[session_id] = subscription
        follower = asyncio.create_task(
            self._quietly(lambda: self._events(session, subscription)), name=f"{self.endpoint} follows {session_id}"
        )
        self.followers.add(follower)
        follower.add_done_callback(self.followers.discard)

    async def _events(self, session: Session, subscription: Subscription) -> None:
        await self.tell(session, subscription, session_id=session.id)
        if self.followed.get(session.id) is subscription:
            del self.followed[session.id]
            over = self.registry.ended(session.id)
            await self._unfollowed(session.id, OVER if over else AWAY, "The session is over." if over else "Not now.")

    async def _unfollowed(self, session_id: str, code: int, reason: str) -> None:
        body = {"type": "unfollowed", "session_id": session_id, "code": code, "reason": reason}
        await self.send(body | {"timestamp": timestamp()})

    def _close(self, session_id: str) -> None:
        if (subscription := self.followed.pop(session_id, None)) is not None:
            subscription.close()

    def _watch(self, body: dict[str, Any]) -> None:
        from . import schemas  # loaded by the start hook, off the loop

        wanted = schemas.parse(schemas.Watch, body)
        self.watched, self.width = tuple(dict.fromkeys(wanted.sessions)), wanted.width
        if self.watched and self.looks is None:
            self.looks = asyncio.create_task(self._quietly(self._look), name="thumbnails")

    async def _look(self) -> None:
        """Send each watched desktop's thumbnail whenever it has changed, one after the other."""
        sent: dict[str, str] = {}
        while True:
            for session_id in self.watched:
                try:
                    data = await self.services.thumbnails.get(self.registry.get(session_id).desktop, self.width)
                except CambioError:  # ended, or its desktop is away for a moment: the status says so
                    continue
                image = f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
                if sent.get(session_id) != image:
                    sent[session_id], now = image, timestamp()
                    await self.send({"type": "thumbnail", "session_id": session_id, "image": image, "timestamp": now})
            sent = {session_id: image for session_id, image in sent.items() if session_id in self.watched}
            await asyncio.sleep(PERIOD)
