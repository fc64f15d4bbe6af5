"""Widgets for a cell: a session's live view, and its panel with a record below it.

Everything a browser does is in ``labextension/``. On a page that Jupyter serves the view talks to the server itself, so
it works while the kernel is busy; elsewhere (VS Code, Colab, a server elsewhere) the kernel relays its traffic. The
protocol is in ``labextension/README.md``; requests are limited to one session's own paths and to what the panel needs.
Synced traits are saved in notebooks: none ever holds a token.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from ..client import portal
from ..client.channel import Channel, Listener
from ..client.screenshot import Screenshot
from ..client.session import Session
from ..errors import CambioError, ConfigurationError
from . import bundle
from .follower import folded, follow, show_raw

MODES = ("panel", "desktop", "chat")
STATIC = Path(__file__).resolve().parent.parent / "static"
Send = Callable[[dict[str, Any], list[bytes]], None]
FRAME_SECONDS = 1.0
"""Shortest time between two screenshots: they count against the server's general rate limit."""
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
MODULES = frozenset({"relay.js", "panel.css"})
MOST_REQUESTS = 16
"""Requests of one view at a time; more are refused, so that a page cannot pile up work in the kernel."""


class DesktopView(anywidget.AnyWidget):
    """Shows a session."""

    session_id = traitlets.Unicode("").tag(sync=True)
    base_url_hint = traitlets.Unicode("").tag(sync=True)
    height = traitlets.Int(560).tag(sync=True)
    mode = traitlets.Enum(MODES, "panel").tag(sync=True)
    relay = traitlets.Bool(False).tag(sync=True)

    def __init__(self, session: Session, *, mode: str = "panel", height: int = 560, relay: bool | None = None) -> None:
        self.session = session
        self._relay = Relay(session, self._answer)
        self._esm, self._css = asset("widget.js"), asset("widget.css")  # anywidget makes synced traits of them
        super().__init__(
            session_id=session.id,
            base_url_hint=session.lab.address.base_path,
            mode=mode,
            height=height,
            relay=not session.lab.address.parent if relay is None else relay,
        )
        self.on_msg(self._receive)

    def close(self) -> None:
        self._relay.close()
        super().close()

    def _receive(self, widget: Any, content: Any, buffers: Any) -> None:
        if isinstance(content, dict):
            self._relay.receive(content)

    def _answer(self, message: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(message, buffers)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and beside it what a saved notebook shows without one."""
        found = super()._repr_mimebundle_(**options)
        data, metadata = found if isinstance(found, tuple) else (found, {})
        title = f"{self.session.name} ({self.session.status})"
        return {**(data or {}), **bundle(self.session.turns, title=title)}, metadata


class SessionPanel(DesktopView):
    """Desktop, chat and timeline of one session; shown with a record below it that the saved notebook keeps."""

    def _ipython_display_(self, **options: Any) -> None:
        show_raw(*self._repr_mimebundle_())
        portal.run(follow(self.session, show_raw(folded([], self.session.name))))


class Relay:
    """Answers one view's messages. ``receive`` may be called from any thread; answers leave from the portal's."""

    def __init__(self, session: Session, send: Send) -> None:
        self._session = session
        self._send = send
        self._channel: Channel | None = None
        self._following: asyncio.Task[None] | None = None
        self._frame = b""
        self._frame_at = 0.0
        self._work: set[Future[None]] = set()

    def receive(self, message: Mapping[str, Any]) -> None:
        """One message of the view; unknown kinds are ignored."""
        handlers: dict[str, Callable[[Mapping[str, Any]], Coroutine[Any, Any, None]]] = {
            "rest": self._rest,
            "open": self._open,
            "send": self._forward,
            "frame": self._screenshot,
            "module": self._module,
            "close": self._close,
        }
        handler = handlers.get(str(message.get("kind")))
        if handler is None or len(self._work) >= MOST_REQUESTS:
            return
        future = portal.submit(handler(message))
        self._work.add(future)
        future.add_done_callback(self._work.discard)

    def close(self) -> None:
        portal.submit(self._close({}))

    async def _rest(self, message: Mapping[str, Any]) -> None:
        method, path = str(message.get("method", "GET")), str(message.get("path", "")).lstrip("/")
        answer: dict[str, Any] = {"kind": "rest", "id": message.get("id")}
        if method not in METHODS or not self._may_ask(path):
            self._send({**answer, "status": 403, "body": {"message": "The kernel relays this session only."}}, [])
            return
        options: dict[str, Any] = {"json": message.get("body"), "accept": tuple(range(300, 600)), "patience": 0.0}
        try:
            response = await self._session.lab.rest.request(method, f"/{path}", **options)
        except CambioError as error:
            self._send({**answer, "status": 502, "body": {"message": error.describe()}}, [])
            return
        kind = response.headers.get("content-type", "")
        kept = {name: response.headers[name] for name in ("retry-after",) if name in response.headers}
        answer |= {"status": response.status_code, "headers": kept}
        if kind.startswith("application/json"):
            self._send({**answer, "body": response.json()}, [])
        else:
            self._send({**answer, "content_type": kind}, [response.content])

    def _may_ask(self, path: str) -> bool:
        own = f"sessions/{self._session.id}"
        plain = path.partition("?")[0]
        return f"{plain}/".startswith(f"{own}/") and ".." not in plain.split("/") and "%2e" not in path.lower()

    async def _open(self, message: Mapping[str, Any]) -> None:
        await self._close({})
        after = message.get("after") if type(message.get("after")) is int else None
        self._channel = Channel(self._session.lab.address, self._session.id, after=after)
        self._following = asyncio.create_task(self._follow(self._channel, self._channel.listen()))

    async def _follow(self, channel: Channel, listener: Listener) -> None:
        try:
            await channel.connect()
            while True:
                for message in await listener.get():
                    if message.type != "connection":
                        self._send({"kind": "event", "message": dict(message.raw)}, [])
                    elif message.metadata.get("again"):
                        self._send({"kind": "up"}, [])
                    else:
                        self._send({"kind": "down", "reason": message.content}, [])
        except CambioError as error:
            self._send({"kind": "down", "reason": error.describe()}, [])
        finally:
            listener.close()

    async def _forward(self, message: Mapping[str, Any]) -> None:
        inner = message.get("message")
        if not isinstance(inner, dict):
            return
        channel = self._channel or self._session.channel
        try:
            await channel.send(json.loads(json.dumps(inner)))
        except CambioError as error:
            self._send({"kind": "down", "reason": error.describe()}, [])

    async def _screenshot(self, message: Mapping[str, Any]) -> None:
        """Send the screen now, at most once a second; ``same`` when it is what was sent last."""
        await asyncio.sleep(max(0.0, self._frame_at + FRAME_SECONDS - time.monotonic()))
        self._frame_at = time.monotonic()
        width = message.get("width")
        params = {"width": min(1920, max(64, width))} if type(width) is int else None
        path = f"{self._session.path}/screenshot"
        try:
            data, _ = await self._session.lab.rest.bytes(path, params=params, patience=90.0)
        except CambioError as error:
            self._send({"kind": "frame", "same": True, "reason": error.describe()}, [])
            return
        if data == self._frame:
            self._send({"kind": "frame", "same": True}, [])
            return
        self._frame = data
        width, height = await asyncio.to_thread(lambda: Screenshot(data).size)
        self._send({"kind": "frame", "width": width, "height": height}, [data])

    async def _module(self, message: Mapping[str, Any]) -> None:
        name = str(message.get("name"))
        if name in MODULES:
            self._send({"kind": "module", "name": name, "text": await asyncio.to_thread(asset, name)}, [])

    async def _close(self, message: Mapping[str, Any]) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._following = None


@cache
def asset(name: str) -> str:
    """The text of a built front-end file. Raises ``ConfigurationError`` when the package was installed without it."""
    path = STATIC / name
    if not path.is_file():
        raise ConfigurationError(
            f"The front end's {name} is not there.",
            hint="Install the package from a wheel, or run `npm ci && npm run build:prod` in labextension/.",
        )
    return path.read_text(encoding="utf-8")
