"""The server itself: ``/health`` (real questions to each service, at most once a second), models, ``/mcp``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Gauge

from .._version import __version__
from ..desktop.provider import ISOLATION, ProviderHealth
from ..errors import ConfigurationError
from ..settings import Settings
from . import timestamp
from .base import Services
from .rest import Rest

DISK_BYTES = Gauge("cambio_lab_disk_bytes", "Bytes of the database and the screenshots")
PATIENCE = 2.0
"""Seconds that one service may take to answer."""
FRESH = 1.0
"""Seconds for which an answer is good."""
logger = logging.getLogger(__name__)
SHOWN = (
    *("model", "platform", "effort", "approval", "approval_timeout", "desktop", "display", "network", "image_format"),
    *("max_steps", "max_cost_usd", "max_turn_seconds", "max_turn_tokens", "session_timeout", "idle_timeout"),
    *("max_desktops", "max_file_bytes", "heartbeat", "record"),
)
"""Settings that a client may see; the others concern the server alone."""
assert set(SHOWN) <= {item.name for item in fields(Settings)}


class HealthCheck:
    """Asks everything a session needs. Simultaneous callers share one round of questions."""

    def __init__(self, services: Services, provider: Any) -> None:
        self._services = services
        self._provider = provider
        self._answer: dict[str, Any] = {}
        self._asked_at = float("-inf")
        self._round: asyncio.Task[dict[str, Any]] | None = None

    async def ask(self) -> dict[str, Any]:
        """The documented body without the time; ``status`` is healthy, degraded or unhealthy."""
        if time.monotonic() - self._asked_at < FRESH:
            return self._answer
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._ask(), name="cambio_lab health")
        return await asyncio.shield(self._round)

    async def _ask(self) -> dict[str, Any]:
        database, redis, desktop = await asyncio.gather(
            _within(self._database()), _within(self._services.limiter.ping()), _within(self._provider.health())
        )
        services = {
            "database": database or "down",
            "redis": redis or "down",
            **_desktop(desktop or ProviderHealth(str(self._provider.name), False, "no answer")),
        }
        if services["database"] != "up" or "down" in (services["docker"], services["desktop"]):
            status = "unhealthy"
        else:
            status = "degraded" if services["redis"] == "down" else "healthy"
        self._answer = {"status": status, "services": services, "version": __version__}
        self._asked_at = time.monotonic()
        return self._answer

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
        settings = self.services.settings
        found: dict[str, Any] = {name: getattr(settings, name) for name in SHOWN}
        await self.services.registry()
        self.write_json({**found, "desktop_kind": self.services.desktop_kind})


async def watch_disk(services: Services, period: float = 60.0) -> None:
    """Keep the disk gauge current until cancelled."""
    while True:
        store = await services.store()
        DISK_BYTES.set(await store.disk_bytes())
        await asyncio.sleep(period)


AsgiEvent = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[AsgiEvent]], Callable[[AsgiEvent], Awaitable[None]]],
    Awaitable[None],
]


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

    async def _answer(self, application: Application) -> None:
        body = [self.body]

        async def receive() -> AsgiEvent:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            await asyncio.Event().wait()  # a client that leaves cancels this
            raise AssertionError

        async def send(event: AsgiEvent) -> None:
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
