"""Desktops in containers of a Docker Engine."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from operator import methodcaller
from pathlib import Path
from typing import Any

from cambio_lab.errors import CambioError, DesktopLost, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..machine import run
from ..provider import ISOLATION, DesktopOptions, Pool, Progress, ProviderHealth
from ..rfb import stream as rfb
from .containers import (
    SERVER_LABEL,
    XVNC,
    ContainerMachine,
    create,
    reap,
    remove,
    start_attached,
    start_exec,
    started,
)
from .desktop import VNC_PORT, DockerDesktop, Relay, describe, need
from .engine import START_DOCKER, Engine, EngineError
from .image import build_image, image_exists, image_tag
from .network import Networks, Placement

log = logging.getLogger(__name__)

_READY_TIMEOUT, _PASSWORD_SECONDS = 60.0, 5.0
_AT_ONCE = 4
"""Containers started at the same time; more only slow each other down."""


class DockerProvider:
    """Makes :class:`~cambio_lab.desktop.docker.desktop.DockerDesktop`, keeps a warm pool, cleans up after crashes.

    ``server_id`` labels every container: only this server's own are adopted or reaped. ``extra_hosts`` are names that
    allow-list proxies know besides DNS.
    """

    name = "docker"
    unclean = False

    def __init__(self, settings: Settings, *, server_id: str, extra_hosts: dict[str, str] | None = None) -> None:
        self._settings = settings
        self.server_id = server_id
        self._engine = Engine()
        self._networks = Networks(self._engine, server_id, extra_hosts)
        self._pool = Pool(self._make, settings)
        self.direct: bool | None = None if self._engine.is_local else False
        """Whether VNC takes published ports rather than the engine; ``None``: not known yet."""
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._building = asyncio.Lock()
        self._reference: str | None = None
        self._told: list[Callable[[Progress], None]] = []
        """Those who wait for the image."""
        self._preparing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if not self._pool.in_use:  # whose networks stand, when they were adopted
            self._preparing = asyncio.create_task(self._prepare(), name="desktop-networks")
        self._pool.start()

    async def _prepare(self) -> None:
        """Networks and rules, so that the first desktop need not wait for them; not the image, which may take minutes.

        A request for a desktop meets the same error and reports it.
        """
        try:
            if await image_exists(self._engine, image_tag(self._settings.image)):
                image = await self._image(self._pool.usual)
                async with self._gate:
                    await asyncio.to_thread(import_module, "Crypto.Cipher.DES")
                    await self._networks.prepare(image)
        except (EngineError, CambioError) as error:
            self.unclean = True
            log.info("nothing could be prepared for desktops: %s", error)

    # Desktops
    async def acquire(self, session_id: str, options: DesktopOptions) -> DockerDesktop:
        """From the pool when the options are the usual ones, else a new container."""
        return await self._pool.acquire(options)

    async def _make(self, options: DesktopOptions) -> DockerDesktop:
        made = False
        try:
            image = await self._image(options)
            async with self._gate:
                desktop = await started(partial(self._launch, image, options))
            made = True
            return desktop
        except TimeoutError as error:
            raise DesktopUnavailable("The desktop did not start in time.", hint="Is the machine overloaded?") from error
        except (EngineError, OSError) as error:  # OSError: of a stream that could not be opened
            missing = "catatonit" in str(error)
            hint = "Podman needs `apt install catatonit`." if missing else "Run `cambio-lab doctor`."
            raise DesktopUnavailable(f"The engine refused: {error}", hint=hint) from error
        finally:
            self.unclean = self.unclean or not made

    async def _launch(self, image: str, options: DesktopOptions) -> DockerDesktop:
        """A new container, connected to. Whatever goes wrong, cancellation included, nothing of it is left."""
        placement = await self._networks.place(image, options.network, options.allow_hosts)
        container: str | None = None
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                given = (self.server_id, image, self._settings, options, placement, await self._engine.podman())
                container = await create(self._engine, lambda client: describe(client, *given))
                if (inner := placement.inner) is not None:
                    join = methodcaller("connect_container_to_network", container, inner, aliases=["desktop"])
                    await self._engine.finish(join)
                desktop = await self._boot(container)
                desktop.placement = placement
                return desktop
        except BaseException:
            await asyncio.shield(self._discard(container, placement))
            raise

    async def _discard(self, container: str | None, placement: Placement) -> None:
        if container is not None:
            await remove(self._engine, container)
        await self._networks.remove(placement)

    async def _boot(self, container: str) -> DockerDesktop:
        """Start it, tell it its password, and connect as soon as it says that Xvnc listens."""
        password = secrets.token_urlsafe(6)  # eight characters: all that VncAuth can use
        server = await start_attached(self._engine, container)
        listening = asyncio.Event()
        session = asyncio.create_task(self._start_session(container, listening), name="desktop-session")
        session.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            server.writer.write(base64.b64encode(rfb.obfuscate(password)) + b"\n")
            inspected = self._engine.call(methodcaller("inspect_container", container))
            state, _ = await asyncio.gather(inspected, need(server, b"listening"))
            listening.set()
            desktop = await self._connect(state, password)
        except BaseException:
            server.abandon()
            session.cancel()
            raise
        desktop.listen(server, session)
        return desktop

    async def _start_session(self, container: str, listening: asyncio.Event) -> None:
        """Start window manager and panel; their script waits for a line, so that it starts while Xvnc does."""
        session = await start_exec(self._engine, container, ["start-session"])
        try:
            await listening.wait()
            await session.write(b"\n")
            await session.until(b"managed\n")
        finally:
            session.abandon()

    async def _connect(self, state: dict[str, Any], password: str) -> DockerDesktop:
        """Open a running desktop: by its published port, or through the engine where that leads nowhere."""
        make = partial(DockerDesktop, self._engine, state, self._settings, self._networks, self._pool.forget)
        ports = state["NetworkSettings"]["Ports"].get(f"{VNC_PORT}/tcp")
        if not ports:
            raise DesktopUnavailable("The desktop's container ended at once.", hint="See `docker logs` for it.")
        if self.direct is not False:
            port = int(ports[0]["HostPort"])
            desktop = make(VncEndpoint("127.0.0.1", port, password=password))
            try:
                await desktop.open()
            except DesktopLost as error:
                if self.direct:
                    raise
                log.info("published port not reachable; VNC goes through the engine: port=%s error=%s", port, error)
            else:
                self.direct = True
                return desktop
        relay = await Relay.start(self._engine, state["Id"])
        try:
            desktop = make(VncEndpoint(unix_path=relay.path, password=password))
            await desktop.open()
        except BaseException:
            await asyncio.shield(relay.close())
            raise
        self.direct = False
        desktop.relay = relay
        return desktop

    async def _image(self, options: DesktopOptions) -> str:
        """The image to start; built the first time it is needed."""
        if options.image is not None:
            if not await image_exists(self._engine, options.image):
                raise DesktopUnavailable(f"This engine has no image {options.image!r}.", hint="Build or pull it first.")
            return options.image
        if self._reference is None:
            if options.progress is not None:
                self._told.append(options.progress)  # the pool may have begun to build before
            try:
                async with self._building:
                    if self._reference is None:
                        self._reference = await self.build()
            finally:
                if options.progress is not None:
                    self._told.remove(options.progress)
        return self._reference

    async def build(self) -> str:
        """Make sure that the image exists, telling those who wait how far it is; its reference."""

        def tell(progress: Progress) -> None:
            log.info("image: %s", progress.text)
            for report in list(self._told):
                report(progress)

        extension = Path(self._settings.dockerfile) if self._settings.dockerfile else None
        return await build_image(self._engine, self._settings.image, tell, dockerfile=extension)

    # After a restart
    async def adopt(self, desktop_id: str, session_id: str) -> DockerDesktop | None:
        """The password is read from the container itself: nothing on our disk holds it.

        ``None`` when it is gone. :class:`DesktopUnavailable` while it cannot be reached: then nothing is known yet.
        """
        try:
            state = await self._engine.call(methodcaller("inspect_container", desktop_id))
            if not state["State"]["Running"] or state["Config"]["Labels"].get(SERVER_LABEL) != self.server_id:
                return None
            machine = ContainerMachine(self._engine, desktop_id, XVNC)  # the user who alone may read the password
            read = ["head", "-c8", "/run/xvnc/password"]
            code, secret, _ = await run(machine, read, timeout=_PASSWORD_SECONDS, limit=8)
            if code != 0 or len(secret) != 8:
                return None
            placement = await self._networks.recall(state)
            desktop = await self._connect(state, rfb.reveal(secret))
        except (EngineError, DesktopLost, TimeoutError) as error:
            if isinstance(error, EngineError) and error.status == 404:
                return None
            raise DesktopUnavailable(f"The desktop does not answer: {error or 'it timed out'}") from error
        desktop.placement = placement
        desktop.forget_keyboard()
        self._pool.in_use[desktop_id] = desktop
        return desktop

    async def reap(self, keep: frozenset[str]) -> list[str]:
        """Containers and networks with our label that no session and no pool holds.

        Between launches: a container that is being made is in no list yet.
        """
        try:
            async with AsyncExitStack() as stack:
                for _ in range(_AT_ONCE):
                    await stack.enter_async_context(self._gate)
                gone = await reap(self._engine, self.server_id, keep | self._pool.ids())
                self.unclean = False
                return gone
        except EngineError as error:
            raise DesktopUnavailable(f"The Docker Engine refused: {error}") from error

    async def health(self) -> ProviderHealth:
        down = ProviderHealth("docker", False, "no Docker Engine answers", START_DOCKER)
        summary = f"{ISOLATION[self.name]}, {self._pool}"
        try:
            if not await self._engine.answers():
                return down
            if version := await self._engine.podman():
                summary += f"; by Podman {version}"
            if self._reference is None and not await image_exists(self._engine, image_tag(self._settings.image)):
                return ProviderHealth(
                    "docker", True, f"{summary}; the image is not built yet", "cambio-lab image build"
                )
        except (EngineError, DesktopUnavailable) as error:  # it answered a moment ago
            log.warning("health: %s", error)
            return down
        if self._networks.problem:
            summary += f"; network rules NOT enforced: {self._networks.problem}"
        return ProviderHealth("docker", True, summary)

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        try:
            async with asyncio.timeout(10):
                if self._preparing is not None:
                    self._preparing.cancel()
                    await asyncio.wait([self._preparing])
                await self._pool.stop(keep)
        except TimeoutError:
            log.warning("some containers were still being removed when the server stopped; its next start removes them")
        self._engine.close()
