"""A small server that speaks the documented API, for what a real one cannot be made to do on command.

It can refuse with 429, drop connections in the middle of a turn, stay silent until stopped, say hostile things. What a
turn does is a list of messages; everything is numbered and replayed as DESIGN says.
"""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import WSMsgType, web
from PIL import Image, ImageDraw

TOKEN = "small-server-secret-token-0123456789"
Body = dict[str, Any]


def png(text: str = "desktop", size: tuple[int, int] = (640, 400)) -> bytes:
    """A PNG with some text on it."""
    image = Image.new("RGB", size, "#204060")
    ImageDraw.Draw(image).text((20, 20), text, fill="white")
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def envelope(status: int, message: str, **details: Any) -> web.Response:
    body = {"error": "x", "message": message, "details": details, "timestamp": "", "request_id": "req-1"}
    return web.json_response(body, status=status)


class SmallSession:
    """One session: its events so far, its readers, the script of its next turns."""

    def __init__(self, name: str, config: Body) -> None:
        self.id = str(uuid.uuid4())
        self.name = name
        self.config = config
        self.status = "active"
        self.events: list[Body] = []
        self.readers: dict[web.WebSocketResponse, bool] = {}
        self.history: list[Body] = []
        self.received: list[Body] = []
        self.stopped = asyncio.Event()
        self.turn: asyncio.Task[None] | None = None
        self.drop_before: set[int] = set()
        """Positions in a turn's script before which all connections are cut."""

    async def publish(self, body: Body) -> None:
        numbered = {**body, "sequence": len(self.events) + 1, "timestamp": "2024-01-15T10:31:05Z"}
        self.events.append(numbered)
        for reader in list(self.readers):
            await reader.send_json(numbered)

    def describe(self) -> Body:
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "vnc_url": f"/vnc/{self.id}",
            "websocket_url": f"/ws/{self.id}",
            "created_at": "2024-01-15T10:30:00Z",
            "model": self.config.get("model", "demo"),
            "config": self.config,
        }


Script = Callable[[SmallSession, str], AsyncIterator[Body]]


async def tour(session: SmallSession, content: str) -> AsyncIterator[Body]:
    """Looks, types what it was told, says so in pieces."""
    yield {"type": "agent_delta", "content": "Let me look. ", "metadata": {"kind": "text"}}
    for step, (tool, arguments) in enumerate((("screenshot", {}), ("type", {"text": content})), 1):
        call = {
            "type": "tool_execution",
            "tool": tool,
            "tool_use_id": f"tu{step}",
            "step": step,
            "arguments": arguments,
        }
        yield {**call, "status": "started"}
        timing = {"action_ms": 1.0, "settle_ms": 80.0, "encode_ms": 6.0, "total_ms": 87.0}
        path = f"/sessions/{session.id}/screenshots/{step}.png"
        result = {"text": "done", "timing": timing, "image_path": path, "dimensions": "640x400"}
        yield {**call, "status": "completed", "result": result}
    for piece in ("I typed ", content, "."):
        yield {"type": "agent_delta", "content": piece, "metadata": {"kind": "text"}}
    yield answer(f"I typed {content}.", ["screenshot", "type"])


async def endless(session: SmallSession, content: str) -> AsyncIterator[Body]:
    """Thinks until it is stopped, as a long turn does."""
    yield {"type": "status", "status": "thinking", "content": "The agent thinks", "metadata": {}}
    yield {"type": "agent_delta", "content": "Working on it", "metadata": {"kind": "text"}}
    await session.stopped.wait()
    yield answer("Working on it", [], stopped=True)


def answer(text: str, tools: list[str], **metadata: Any) -> Body:
    usage = {"input_tokens": 100, "output_tokens": 20, "cost_usd": 0.0012}
    more = {"tool_calls": tools, "processing_time": 1.5, "usage": usage, "stopped": False, "limit": None, **metadata}
    return {"type": "agent_response", "content": text, "metadata": more}


class SmallServer:
    """``refuse`` holds responses to give instead of an answer, by ``"METHOD /path"`` prefix, each used once."""

    def __init__(self) -> None:
        self.sessions: dict[str, SmallSession] = {}
        self.script: Script = tour
        self.refuse: list[tuple[str, Callable[[], web.Response]]] = []
        self.requests: list[str] = []
        self.connections = 0
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application(middlewares=[self._guard])
        app.router.add_post("/sessions", self._create)
        app.router.add_get("/sessions", self._list)
        app.router.add_get("/health", self._health)
        app.router.add_get("/sessions/{id}", self._describe)
        app.router.add_delete("/sessions/{id}", self._end)
        app.router.add_get("/sessions/{id}/history", self._history)
        app.router.add_get("/sessions/{id}/screenshot", self._screenshot)
        app.router.add_get("/sessions/{id}/screenshots/{name}", self._screenshot)
        app.router.add_get("/ws/{id}", self._socket)
        self._runner = web.AppRunner(app, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}"

    async def stop(self) -> None:
        for session in self.sessions.values():
            if session.turn is not None:
                session.turn.cancel()
            for reader in list(session.readers):
                await reader.close()
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        line = f"{request.method} {request.path_qs}"
        self.requests.append(line)
        if request.headers.get("Authorization") != f"token {TOKEN}" and request.path != "/health":
            return envelope(401, "No valid token.")
        for index, (prefix, make) in enumerate(self.refuse):
            if line.startswith(prefix):
                del self.refuse[index]
                return make()
        if "id" in request.match_info and request.match_info["id"] not in self.sessions:
            return envelope(404, "There is no such session.")
        response: web.StreamResponse = await handler(request)
        return response

    def _session(self, request: web.Request) -> SmallSession:
        return self.sessions[request.match_info["id"]]

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if unknown := set(body["config"]) - {"model", "max_steps", "max_cost_usd", "approval", "timeout", "tools"}:
            return envelope(422, f"Unknown configuration: {', '.join(unknown)}.", config=sorted(unknown))
        session = SmallSession(body.get("name") or "generated", body["config"])
        self.sessions[session.id] = session
        return web.json_response(session.describe())

    async def _list(self, request: web.Request) -> web.Response:
        wanted = request.query.get("status")
        rows = [s.describe() for s in reversed(self.sessions.values()) if wanted in (None, s.status)]
        return web.json_response({"sessions": rows, "data": rows, "total": len(rows), "limit": 50, "offset": 0})

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "unhealthy", "services": {"docker": "down"}}, status=503)

    async def _describe(self, request: web.Request) -> web.Response:
        return web.json_response(self._session(request).describe())

    async def _end(self, request: web.Request) -> web.Response:
        session = self._session(request)
        if session.status != "active":
            return envelope(409, "The session is over.")
        session.status = "inactive"
        for reader in list(session.readers):
            await reader.close()
        return web.json_response({"message": "", "session_id": session.id, "ended_at": "2024-01-15T11:30:00Z"})

    async def _history(self, request: web.Request) -> web.Response:
        role = request.query.get("role")
        rows = [row for row in self._session(request).history if role in (None, row["role"])]
        return web.json_response({"messages": rows, "total": len(rows), "session_id": request.match_info["id"]})

    async def _screenshot(self, request: web.Request) -> web.Response:
        return web.Response(body=png(request.path[-40:]), content_type="image/png")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        session = self._session(request)
        self.connections += 1
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        after = request.query.get("after")
        position = len(session.events) if after is None else int(after)
        status = {"type": "status", "status": "idle", "content": "Waiting for a message", "sequence": position}
        await socket.send_json({**status, "metadata": {"event": "snapshot"}})
        for event in session.events[position:]:
            await socket.send_json(event)
        session.readers[socket] = True
        try:
            async for frame in socket:
                if frame.type is WSMsgType.TEXT:
                    await self._frame(session, socket, json.loads(frame.data))
        finally:
            session.readers.pop(socket, None)
        return socket

    async def _frame(self, session: SmallSession, socket: web.WebSocketResponse, body: Body) -> None:
        session.received.append(body)
        if body.get("type") == "stop":
            session.stopped.set()
        elif body.get("type") == "offer_tools":
            await socket.send_json({"type": "tools_offered", "tools": [tool["name"] for tool in body["tools"]]})
        elif "content" in body:
            if session.turn is not None and not session.turn.done():
                refusal = {"type": "error", "error": "Turn running", "details": "The agent is at work."}
                await socket.send_json(refusal)
                return
            session.stopped.clear()
            session.turn = asyncio.create_task(self._turn(session, body))

    async def _turn(self, session: SmallSession, body: Body) -> None:
        identifier = f"msg-{len(session.history)}"
        row = {"id": identifier, "role": "user", "content": body["content"], "metadata": body["metadata"]}
        session.history.append({**row, "timestamp": "2024-01-15T10:31:00Z"})
        metadata = {**body["metadata"], "event": "user_message", "message_id": identifier, "message": body["content"]}
        position = 0
        await self._cut(session, position)
        await session.publish({"type": "status", "status": "thinking", "content": "", "metadata": metadata})
        async for message in self.script(session, body["content"]):
            position += 1
            await self._cut(session, position)
            await session.publish(message)

    async def _cut(self, session: SmallSession, position: int) -> None:
        if position in session.drop_before:
            session.drop_before.discard(position)
            async with asyncio.timeout(5):
                while not session.readers:  # noqa: ASYNC110 - a client that is on its way back
                    await asyncio.sleep(0.01)
            for reader in list(session.readers):
                session.readers.pop(reader)
                assert reader._req is not None and reader._req.transport is not None
                reader._req.transport.abort()  # as a cut cable does
            await asyncio.sleep(0.01)
