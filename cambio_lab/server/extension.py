"""The composition root: configuration becomes settings, settings become objects, objects are given to the routes.

Loading adds routes and nothing else, so Jupyter Server's start is not held up; everything that takes time is imported
and opened by the start hook, in threads. Requests that come earlier wait for it. ``cambio-lab serve`` is a Jupyter
Server with our extension and as little else as possible.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from jupyter_server.extension.application import ExtensionApp
from jupyter_server.serverapp import ServerApp
from traitlets import Bool, Float, Int, TraitType, Unicode, default
from traitlets.config import Configurable

from .._version import __version__
from ..api.base import KEY, Services
from ..api.messages import Encoder
from ..api.routes import HealthCheck, handlers, watch_disk
from ..desktop import build_provider, make_provider
from ..desktop.provider import DesktopProvider
from ..errors import CambioError, ConfigurationError, DirectoryInUse, StoreUnavailable
from ..settings import SECTION, Settings, data_directory, identity, resolve
from . import bound_arenas, keep_trimmed, stop_worker_threads, throttle
from .bounds import bound

if TYPE_CHECKING:
    from ..interop import Endpoint
    from ..interop.otel import Traced
    from ..sessions.registry import Registry
    from ..store import Store

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STOP_SECONDS = 8.0
HEAVY = (
    *("cambio_lab.agent.client", "cambio_lab.interop.otel", "cambio_lab.sessions.registry", "cambio_lab.store"),
    "cambio_lab.api.schemas",
)
"""Modules that take long to import: loaded by the start hook, in a thread. Handlers import from them after that."""
ACTIVITY_SECONDS = 1.0
RETRY_SECONDS = 3.0
"""Between attempts to open a data directory that cannot be had yet."""
_TRAITS: dict[type, type[TraitType[Any, Any]]] = {bool: Bool, int: Int, float: Float, str: Unicode}

Configured = type(
    "Configured",
    (Configurable,),
    {
        item.name: _TRAITS[type(item.default)](item.default, help=item.metadata["help"]).tag(config=True)
        for item in fields(Settings)
    },
)
"""One configurable trait for each setting: ``c.CambioLab.<name>``."""


class CambioLab(Configured, ExtensionApp):  # type: ignore[misc, valid-type]
    """Agents with desktops, on the documented REST and WebSocket API, beside everything else of this server."""

    name = "cambio_lab"
    version = __version__
    extension_url = "/cambio/docs"
    load_other_extensions = True

    services: Services
    _store: Store | None = None
    _registry: Registry | None = None
    _traces: Traced | None = None
    _mcp: Endpoint | None = None
    _providers: dict[str, DesktopProvider]
    _tasks: tuple[asyncio.Task[None], ...] = ()

    def _data_dir_default(self) -> str:
        # JupyterApp has a trait of this name with another meaning: ours is empty unless it is configured.
        return ""

    def resolve_settings(self) -> Settings:
        """Jupyter has merged its files and the command line; the environment comes between them."""
        configured = {item.name: getattr(self, item.name) for item in fields(Settings)}
        assert self.serverapp is not None
        names = {*self.cli_config.get(SECTION, {}), *self.serverapp.cli_config.get(SECTION, {})}
        return resolve({name: configured[name] for name in names & configured.keys()}, configured)

    def initialize_settings(self) -> None:
        """Make what the handlers find in Tornado's settings; a wrong setting is answered with 503 and in the log."""
        try:
            self.services = Services(self.resolve_settings())
        except ConfigurationError as error:
            self.log.error("cambio_lab: %s", error.describe())
            self.services = Services(Settings(rate_general="", rate_create="", rate_websocket="", rate_refused=""))
            self.services.failed(error)
        self.settings[KEY] = self.services
        self._providers = {}
        # Our modules log by name; the server's log is where people look. ServerApp does the same with Tornado's.
        logger = logging.getLogger("cambio_lab")
        logger.parent = self.log
        logger.setLevel(self.log.level)
        assert self.serverapp is not None
        throttle(self.log, self.serverapp.log)
        bound(self.settings)  # the HTTP server is made after the extensions

    def initialize_handlers(self) -> None:
        self.handlers.extend(handlers())

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """Jupyter waits for all extensions' hooks together, so ours only begins the work."""
        if self.services.failure is None:
            bound_arenas()  # before there are threads
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                # Without a terminal Jupyter dies of it as it is. JupyterHub stops servers so: desktops must not stay.
                signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
            self._tasks = (asyncio.create_task(self._start(), name="cambio_lab start"),)

    async def _start(self) -> None:
        """Open everything; again and again while the disk is full or another server has the directory."""
        try:
            while True:
                try:
                    return await self._open()
                except (DirectoryInUse, StoreUnavailable) as error:
                    if self.services.failure is None or self.services.failure.message != error.message:
                        self.log.error("cambio_lab cannot serve sessions yet: %s", error.describe())
                    self.services.failed(error)
                    await self._close()
                await asyncio.sleep(RETRY_SECONDS)
        except CambioError as error:
            self.log.error("cambio_lab cannot serve sessions: %s", error.describe())
            self.services.failed(error)
        except Exception:
            self.log.exception("cambio_lab cannot serve sessions")
            self.services.failed(ConfigurationError("The server could not start its sessions; its log says why."))

    async def _open(self) -> None:
        for name in HEAVY:
            await asyncio.to_thread(import_module, name)
        from ..interop import Endpoint
        from ..interop.otel import traced
        from ..sessions.registry import Registry
        from ..store import Store

        settings = self.services.settings
        directory = data_directory(settings)
        await self.services.limiter.start()
        self._store = await Store.open(directory)
        server_id = await asyncio.to_thread(identity, directory)
        default = await make_provider(settings, server_id=server_id)
        self._providers = {"auto": default, default.name: default}
        encoder = Encoder(self.settings["base_url"])
        self._traces = await asyncio.to_thread(traced, encoder)
        self._registry = Registry(
            settings=settings,
            store=self._store,
            provider_for=partial(self._provider_for, server_id),
            encode=self._traces or encoder,
        )
        await self._registry.start()
        self.services.health = HealthCheck(self.services, default)
        self.services.desktop_kind = default.name
        from ..reports import formats
        from ..reports.run import export

        self.services.export, self.services.formats = export, formats
        if find_spec("mcp") is not None:
            self._mcp = Endpoint(self._registry)
            self.services.mcp = self._mcp.application
        self.services.ready(self._registry)
        health = await default.health()
        self.log.info("cambio_lab %s: %s; data in %s", __version__, health.summary, directory)
        self._tasks += (
            asyncio.create_task(watch_disk(self.services), name="cambio_lab disk gauge"),
            asyncio.create_task(keep_trimmed(), name="cambio_lab memory"),
            asyncio.create_task(_load_the_rest(), name="cambio_lab SDK"),
            asyncio.create_task(self._report_activity(self._registry), name="cambio_lab activity"),
        )

    def _provider_for(self, server_id: str, kind: str) -> DesktopProvider:
        """One provider of each kind, made when it is first needed; for ``auto`` the engine was asked at the start."""
        if kind not in self._providers:
            self._providers[kind] = build_provider(self.services.settings, server_id, kind)
        return self._providers[kind]

    async def stop_extension(self) -> None:
        """End or keep the sessions as ``keep_sessions`` says, within ten seconds."""
        self.services.failed(StoreUnavailable("The server is shutting down."))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._close()
        except TimeoutError:
            self.log.error("cambio_lab: not everything was closed within %g s; the next start clears up", STOP_SECONDS)
        finally:
            stop_worker_threads()

    async def _close(self) -> None:
        keep: frozenset[str] = frozenset()
        if self._mcp is not None:
            await self._mcp.aclose()
            self._mcp = None
        if self._registry is not None:
            keep = await self._registry.stop()
        for provider in set(self._providers.values()):
            await provider.stop(keep=keep)
        await self.services.limiter.stop()
        if self._store is not None:
            await self._store.close()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.shutdown)
            self._traces = None
        self._providers = {}
        self._registry = self._store = None

    async def _report_activity(self, registry: Registry) -> None:
        """An agent at work is activity as Jupyter reports it, so that JupyterHub does not stop its server as idle."""
        while True:
            if any(session.life.working for session in registry.sessions):
                self.settings["last_activity_times"][self.name] = datetime.now(UTC)
            await asyncio.sleep(ACTIVITY_SECONDS)

    def current_activity(self) -> Any:
        """Jupyter asks this before it shuts an idle server down: a session is activity."""
        return self._registry.sessions if self._registry is not None else None


async def _load_the_rest() -> None:
    """Import what the first message needs; what exists then stays."""
    from ..agent.client import load_sdk

    await load_sdk()
    # A full garbage collection looks at each object, a million of them once the packages are imported: that took
    # 220 ms, on the event loop, and half-open requests and turns brought one about every few seconds.
    gc.freeze()


class QuietServer(ServerApp):
    """Without kernels, terminals, files and notebooks: who may drive an agent need not run code on the server.

    What differs from Jupyter's defaults is a default here, too: the user's configuration files, ``JUPYTER_PORT`` and
    the command line are stronger.
    """

    default_services: tuple[str, ...] = ("auth", "api", "security", "shutdown")  # type: ignore[assignment]
    port_default_value = 8000
    port_retries_default_value = 0

    @default("ip")
    def _ip_of_this_machine(self) -> str:
        return "127.0.0.1"

    @default("answer_yes")
    def _no_questions(self) -> bool:
        return True

    @default("allow_root")
    def _as_the_user_that_started_it(self) -> bool:
        return os.geteuid() == 0

    @default("allow_remote_access")
    def _checked_host(self) -> bool:
        """Listening on every address turns Jupyter's check of the Host header off, and with it what keeps a page
        elsewhere from reaching this server under a name of its own (DNS rebinding)."""
        return False

    @default("local_hostnames")
    def _own_names(self) -> list[str]:
        return host_names(self.ip)


def host_names(ip: str) -> list[str]:
    """The names by which clients may call a server that listens on ``ip``."""
    return ["localhost"] if ip in LOOPBACK else ["localhost", socket.gethostname(), socket.getfqdn()]


class Serve(CambioLab):
    """Our extension as the only one."""

    load_other_extensions = False
    serverapp_class = QuietServer

    @default("open_browser")
    def _no_browser(self) -> bool:
        assert self.serverapp is not None
        return bool(self.serverapp.config["ServerApp"].get("open_browser", False))


def serve(options: list[str]) -> None:
    """Run until SIGTERM, SIGINT or ``POST /api/shutdown``. ``options`` are Jupyter's."""
    Serve.launch_instance(options)  # type: ignore[no-untyped-call]
