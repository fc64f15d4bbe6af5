"""Desktops in containers of a Docker Engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from cambio_lab.errors import CambioError, DesktopUnavailable
from cambio_lab.settings import Settings

from ..provider import ISOLATION, DesktopOptions, Pool, Progress, ProviderHealth
from .containers import HOME, ROLE_LABEL, SEALED, SERVER_LABEL, XVNC, create, memory_folder, reap, remove, started
from .desktop import VNC_PORT, DockerDesktop, Launcher
from .engine import START_DOCKER, Engine, EngineError
from .image import build_image, image_exists, image_tag
from .network import Networks, Placement

log = logging.getLogger(__name__)

_READY_TIMEOUT = 60.0
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
        self._launcher = Launcher(self._engine, settings, server_id, self._networks, self._pool.forget)
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
                    await self._launcher.prepare(image)
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
                podman = await self._engine.podman()
                describe = partial(self._describe, image=image, options=options, placement=placement, podman=podman)
                container = await create(self._engine, describe)
                await self._networks.join(placement, container)
                desktop = await self._launcher.boot(container, image)
                desktop.placement = placement
                return desktop
        except BaseException:
            await asyncio.shield(self._discard(container, placement))
            raise

    async def _discard(self, container: str | None, placement: Placement) -> None:
        if container is not None:
            await remove(self._engine, container)
        await self._networks.remove(placement)

    def _describe(
        self, client: Any, *, image: str, options: DesktopOptions, placement: Placement, podman: str
    ) -> dict[str, Any]:
        """The arguments of ``create_container``: everything DESIGN's isolation asks for, and no secret."""
        limit = self._settings.desktop_tmp
        host = client.create_host_config(
            **SEALED,
            mem_limit=self._settings.desktop_memory,
            memswap_limit=self._settings.desktop_memory,
            nano_cpus=int(self._settings.desktop_cpus * 1e9),
            pids_limit=self._settings.desktop_pids,
            oom_score_adj=500,
            shm_size=limit,
            tmpfs={
                HOME: memory_folder(podman, limit, 1000, "exec"),
                "/tmp": f"size={limit},mode=1777,nosuid,nodev,exec",
                "/run/desktop": memory_folder(podman, 16 * 1024**2, 1000),
                "/run/xvnc": memory_folder(podman, "1m", 900, "noexec"),
            },
            port_bindings={VNC_PORT: ("127.0.0.1",)},
            network_mode=placement.network,
            # Names are asked of an address that does not exist: a lookup would be a way out of a closed network.
            dns=["192.0.2.1"] if placement.offline_names else None,
        )
        return {
            "image": image,
            "command": ["start-desktop", str(options.size)],
            "hostname": "desktop",
            "user": XVNC,
            "working_dir": "/",
            "environment": placement.environment,
            "labels": {**options.labels, SERVER_LABEL: self.server_id, ROLE_LABEL: "desktop"},
            "ports": [VNC_PORT],
            "stdin_open": True,
            "host_config": host,
        }

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
        desktop = await self._launcher.adopt(desktop_id)
        if desktop is not None:
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

    @property
    def direct(self) -> bool | None:
        """Whether VNC takes published ports rather than the engine; ``None`` before the first desktop."""
        return self._launcher.direct

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
