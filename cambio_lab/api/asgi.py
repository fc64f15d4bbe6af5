"""An ASGI application behind the checks of every handler; its answer is sent whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..errors import ConfigurationError
from .rest import Rest

Event = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]
]


class Mcp(Rest):
    """``/mcp``: the Model Context Protocol over streamable HTTP, without sessions: each request is one POST."""

    methods = ("POST",)
    _answering: asyncio.Future[None] | None = None

    async def post(self) -> None:
        await self.services.registry()
        if self.services.mcp is None:
            raise ConfigurationError("This server has no MCP.", hint='pip install "cambio-lab[mcp]" and restart it.')
        application = await self.services.mcp.application()
        self.json_object()  # refuses what is no JSON object, is too large or says that it is something else
        self._answering = asyncio.ensure_future(self._answer(application))
        await asyncio.wait({self._answering})
        if not self._answering.cancelled():  # else the client has left
            self._answering.result()

    async def _answer(self, application: Application) -> None:
        body = [bytes(self._body)]

        async def receive() -> Event:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await asyncio.Event().wait()  # a client that leaves cancels this
            raise AssertionError

        async def send(event: Event) -> None:
            if event["type"] == "http.response.start":
                self.set_status(event["status"])
                for name, value in event.get("headers", ()):
                    if name.lower() != b"content-length":
                        self.set_header(name.decode("latin-1"), value.decode("latin-1"))
            else:
                self.write(event.get("body", b""))

        await application(self._scope(), receive, send)
        await self.finish()

    def _scope(self) -> dict[str, Any]:
        request = self.request
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.get_all()
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.protocol,
            "path": self.url("mcp"),
            "raw_path": self.url("mcp").encode(),
            "root_path": str(self.base_url).rstrip("/"),
            "query_string": b"",
            "headers": headers,
            "client": (request.remote_ip, 0),
            "server": None,
        }

    def on_connection_close(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
        super().on_connection_close()
