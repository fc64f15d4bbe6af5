"""The server itself, and the map of all URLs: health, models, MCP, what a browser loads, unknown addresses.

Trailing slashes work too; the base URL is put in front by Jupyter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import Gauge
from tornado.web import StaticFileHandler

from .._version import __version__
from ..desktop.provider import ISOLATION, ProviderHealth
from ..errors import ConfigurationError
from ..events import timestamp
from . import MESSAGES, Refused, desktop, history, sessions
from .base import METHODS, Guarded, Services
from .overview_socket import OverviewSocket
from .rest import STATIC, Rest
from .socket import AgentSocket
from .vnc_socket import VncSocket

DISK_BYTES = Gauge("cambio_lab_disk_bytes", "Bytes of the database and the screenshots")
PATIENCE, FRESH = 2.0, 1.0
"""Seconds that one service may take to answer about its health, and for which an answer is good."""
logger = logging.getLogger(__name__)
SHOWN = (
    *("model", "platform", "effort", "approval", "approval_timeout", "desktop", "display", "network", "image_format"),
    *("max_steps", "max_cost_usd", "max_turn_seconds", "max_turn_tokens", "session_timeout", "idle_timeout"),
    *("max_desktops", "max_file_bytes", "heartbeat", "record"),
)
"""Settings that a client may see; the others concern the server alone."""
HERE = Path(__file__).resolve().parent
FRAME_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""For the document that draws a desktop: no origin, no network. It is one file: it has no cookies to ask with."""
DOCS_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


class Static(Guarded, StaticFileHandler):
    """``/cambio/static/{path}``: built modules. They hold no secrets, and a login page must be able to load them."""

    public = True
    limits = ()

    def initialize(self, endpoint: str = "unknown") -> None:  # type: ignore[override]
        Guarded.initialize(self, endpoint)
        StaticFileHandler.initialize(self, str(STATIC))

    def set_extra_headers(self, path: str) -> None:
        """Checked again on each use (an ETag answers cheaply), so that an upgrade is seen at once."""
        self.set_header("Cache-Control", "no-cache")
        if path == "frame.html":
            self.set_header("Content-Security-Policy", FRAME_POLICY)

    def get_content_type(self) -> str:
        """Browsers refuse modules that are not called JavaScript, and not every system knows ``.mjs``."""
        kinds = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm"}
        suffix = Path(self.absolute_path or "").suffix
        return f"{kinds[suffix]}; charset=utf-8" if suffix in kinds else str(super().get_content_type())


class Description(Rest):
    """``/cambio/openapi.yaml`` and ``/cambio/asyncapi.yaml``"""

    public = True

    async def get(self, name: str) -> None:
        text = await asyncio.to_thread((HERE / name).read_text, encoding="utf-8")
        self.set_header("Content-Type", "application/yaml; charset=utf-8")
        self.finish(text.replace("url: /\n", f"url: {self.url().rstrip('/') or '/'}\n", 1))


class Docs(Rest):
    """``/cambio/docs``: both descriptions as one page without scripts or outside resources."""

    public = True

    async def get(self) -> None:
        self.set_header("Content-Security-Policy", DOCS_POLICY)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(await asyncio.to_thread((HERE / "docs.html").read_text, encoding="utf-8"))


class HealthCheck:
    """Asks everything a session needs. Simultaneous callers share one round of questions."""

    def __init__(self, services: Services, provider: Any) -> None:
        self._services = services
        self._provider = provider
        self._answered_at = float("-inf")
        self._round: asyncio.Task[dict[str, Any]] | None = None

    async def ask(self) -> dict[str, Any]:
        """The documented body without the time; ``status`` is healthy, degraded or unhealthy."""
        if self._round is None or (self._round.done() and time.monotonic() - self._answered_at >= FRESH):
            self._round = asyncio.create_task(self._ask(), name="cambio_lab health")
        return await asyncio.shield(self._round)

    async def _ask(self) -> dict[str, Any]:
        database, redis, screen = await asyncio.gather(
            _within(self._database()), _within(self._services.limiter.ping()), _within(self._provider.health())
        )
        screen = screen or ProviderHealth(str(self._provider.name), False, "no answer")
        services = {"database": database or "down", "redis": redis or "down", **_desktop(screen)}
        down = services["database"] != "up" or "down" in (services["docker"], services["desktop"])
        status = "unhealthy" if down else "degraded" if services["redis"] == "down" else "healthy"
        self._answered_at = time.monotonic()
        return {"status": status, "services": services, "version": __version__}

    async def _database(self) -> str:
        store = await self._services.store()
        return "down" if await store.health() is not None else "up"


def _desktop(health: ProviderHealth) -> dict[str, str]:
    answers = "up" if health.up else "down"
    state = answers if health.name in ("docker", "none") else "disabled"
    return {"docker": state, "desktop": ISOLATION[health.name] if health.up else "down"}


async def _within(question: Awaitable[Any]) -> Any:
    """The answer, or ``None`` when there is none in time: a health check must not fail itself."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await question
    except Exception as error:
        logger.warning("health: %s", str(error) or type(error).__name__)
        return None


class Health(Rest):
    """``/health``: open to all callers and not rate limited, for load balancers."""

    public = True
    limits = ()

    async def get(self) -> None:
        services = self.services
        await services.settled.wait()
        if services.health is None:
            down = {"database": "down", "redis": "disabled", "docker": "down", "desktop": "down"}
            answer: dict[str, Any] = {"status": "unhealthy", "services": down, "version": __version__}
        else:
            answer = await services.health.ask()
        if answer["status"] == "unhealthy":
            self.set_status(503)
        self.write_json({"status": answer["status"], "timestamp": timestamp(), **answer})


class Models(Rest):
    """``/cambio/models``"""

    async def get(self) -> None:
        from ..agent.models import describe  # the agent's modules are loaded by the start hook, off the loop

        await self.services.registry()
        self.write_json({"models": describe(datetime.now(UTC).date()), "default": self.services.settings.model})


class Defaults(Rest):
    """``/cambio/defaults``"""

    async def get(self) -> None:
        await self.services.registry()
        found = {name: getattr(self.services.settings, name) for name in SHOWN}
        self.write_json({**found, "desktop_kind": self.services.desktop_kind})


async def watch_disk(services: Services, period: float = 60.0) -> None:
    """Keep the disk gauge current until cancelled."""
    while True:
        DISK_BYTES.set(await (await services.store()).disk_bytes())
        await asyncio.sleep(period)


class Mcp(Rest):
    """``/mcp``: the Model Context Protocol over streamable HTTP, without sessions: each request is one POST."""

    methods = ("POST",)

    async def post(self) -> None:
        await self.services.registry()
        if self.services.mcp is None:
            raise ConfigurationError("This server has no MCP.", hint='pip install "cambio-lab[mcp]" and restart it.')
        application = await self.services.mcp()
        self.json_object()  # refuses what is no JSON object, is too large or says that it is something else
        await self.while_connected(self._answer(application))

    async def _answer(self, application: Any) -> None:
        request, body = self.request, [self.body]

        async def receive() -> dict[str, Any]:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await asyncio.Event().wait()  # a client that leaves cancels this
            raise AssertionError

        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                self.set_status(event["status"])
                for name, value in event.get("headers", ()):
                    if name.lower() != b"content-length":
                        self.set_header(name.decode("latin-1"), value.decode("latin-1"))
            else:
                self.write(event.get("body", b""))

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": request.protocol,
            "path": self.url("mcp"),
            "raw_path": self.url("mcp").encode(),
            "root_path": str(self.base_url).rstrip("/"),
            "query_string": b"",
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.get_all()
            ],
            "client": (request.remote_ip, 0),
            "server": None,
        }
        await application(scope, receive, send)
        await self.finish()


class NotFound(Rest):
    """Every address below ours that nothing answers to."""

    methods = METHODS[:-1]

    def _answer(self, *args: str, **kwargs: str) -> None:
        raise Refused(404, MESSAGES[404])

    get = post = put = patch = delete = _answer

    def check_xsrf_cookie(self) -> None:
        """Nothing happens here that could be forged."""


ID = r"([^/]+)"

ROUTES: tuple[tuple[str, str, type[Any]], ...] = (
    # (template, pattern, handler)
    ("/sessions", r"/sessions/?", sessions.Sessions),
    ("/sessions/{session_id}", rf"/sessions/{ID}/?", sessions.OneSession),
    ("/sessions/{session_id}/stop", rf"/sessions/{ID}/stop/?", sessions.Stop),
    ("/sessions/{session_id}/answer", rf"/sessions/{ID}/answer/?", sessions.Answer),
    ("/sessions/{session_id}/history", rf"/sessions/{ID}/history/?", history.History),
    ("/sessions/{session_id}/events", rf"/sessions/{ID}/events/?", history.Events),
    ("/sessions/{session_id}/steps", rf"/sessions/{ID}/steps/?", history.Steps),
    ("/sessions/{session_id}/screenshot", rf"/sessions/{ID}/screenshot/?", desktop.Screenshot),
    (
        "/sessions/{session_id}/screenshots/{name}",
        rf"/sessions/{ID}/screenshots/([0-9a-f]{{64}})(?:\.\w{{1,5}})?",
        history.Recorded,
    ),
    ("/sessions/{session_id}/files/{path}", rf"/sessions/{ID}/files/(.*)", desktop.Files),
    ("/sessions/{session_id}/images", rf"/sessions/{ID}/images/?", desktop.Images),
    ("/sessions/{session_id}/exec", rf"/sessions/{ID}/exec/?", desktop.Exec),
    ("/sessions/{session_id}/clipboard", rf"/sessions/{ID}/clipboard/?", desktop.Clipboard),
    ("/sessions/{session_id}/run", rf"/sessions/{ID}/run/?", history.Run),
    ("/health", r"/health/?", Health),
    ("/ws", r"/ws/?", OverviewSocket),
    ("/ws/{session_id}", rf"/ws/{ID}/?", AgentSocket),
    ("/vnc/{session_id}", rf"/vnc/{ID}/?", VncSocket),
    ("/mcp", r"/mcp/?", Mcp),
    ("/cambio/formats", r"/cambio/formats/?", history.Formats),
    ("/cambio/export", r"/cambio/export/?", history.Export),
    ("/cambio/experiments", r"/cambio/experiments/?", history.Experiments),
    ("/cambio/experiments/{id}", rf"/cambio/experiments/{ID}/?", history.OneExperiment),
    ("/cambio/experiments/{id}/runs/{run}", rf"/cambio/experiments/{ID}/runs/{ID}/?", history.ExperimentRun),
    ("/cambio/run/{session_id}", rf"/cambio/run/{ID}/?", history.RunPage),
    ("/cambio/models", r"/cambio/models/?", Models),
    ("/cambio/defaults", r"/cambio/defaults/?", Defaults),
    ("/cambio/{name}.yaml", r"/cambio/((?:openapi|asyncapi)\.yaml)", Description),
    ("/cambio/docs", r"/cambio/docs/?", Docs),
    ("/cambio/static/{path}", r"/cambio/static/(.+)", Static),
    ("unknown", r"/(?:sessions|health|ws|vnc|mcp|cambio)(?:/.*)?", NotFound),
)


def handlers() -> list[tuple[str, type[Any], dict[str, Any]]]:
    """For Tornado. The last one answers every address below ours that nothing else does, with the envelope."""
    return [(pattern, handler, {"endpoint": template}) for template, pattern, handler in ROUTES]
