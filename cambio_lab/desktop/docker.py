"""Desktops in containers of a Docker Engine."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cambio_lab.errors import CapacityReached, DesktopLost, DesktopUnavailable, InvalidRequest
from cambio_lab.settings import Settings

from .base import DesktopOptions, Progress, ProviderHealth, Size, VncEndpoint
from .container import ROLE_LABEL, SERVER_LABEL, VNC_PORT, DockerDesktop, StartScript, describe, remove
from .engine import START_DOCKER, Engine, EngineError
from .image import build_image, image_exists, image_tag
from .network import Networks, Placement
from .pool import Pool
from .reap import reap
from .vncauth import new_password, obfuscate, reveal

log = logging.getLogger(__name__)

_READY_TIMEOUT = 60.0
_AT_ONCE = 4
"""Containers started at the same time; more only slow each other down."""


class DockerProvider:
    """Makes :class:`~cambio_lab.desktop.container.DockerDesktop`, keeps a warm pool, cleans up after crashes.

    ``server_id`` labels every container: only this server's own are adopted or reaped. ``extra_hosts`` are names that
    allow-list proxies know besides DNS.
    """

    name = "docker"

    def __init__(self, settings: Settings, *, server_id: str, extra_hosts: dict[str, str] | None = None) -> None:
        self._settings = settings
        self.server_id = server_id
        self._engine = Engine()
        self._networks = Networks(self._engine, server_id, extra_hosts)
        self._desktops: dict[str, DockerDesktop] = {}
        self._launching: set[str] = set()
        self._starting = 0
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._building = asyncio.Lock()
        self._reference: str | None = None
        self._told: list[Callable[[Progress], None]] = []
        """Those who wait for the image."""
        self._digests: dict[str, str] = {}
        self._default = DesktopOptions(size=_size(settings.display), network=_mode(settings.network))
        self._pool = Pool(lambda: self._make(self._default, pooled=True), settings.pool_size)
        self._stopping = False

    async def start(self) -> None:
        self._pool.start()

    @property
    def in_use(self) -> frozenset[str]:
        """``desktop_id`` of the desktops that were handed out."""
        return frozenset(self._desktops)

    # Desktops
    async def acquire(self, session_id: str, options: DesktopOptions) -> DockerDesktop:
        """From the pool when the options are the usual ones, else a new container."""
        if len(self._desktops) + self._starting >= self._settings.max_desktops:
            raise CapacityReached(
                f"All {self._settings.max_desktops} desktops are in use.", hint="End a session, or raise max_desktops."
            )
        self._starting += 1
        try:
            desktop = self._from_pool(options)
            if desktop is None:
                self._pool.busy(+1)
                try:
                    desktop = await self._make(options)
                finally:
                    self._pool.busy(-1)
        finally:
            self._starting -= 1
        self._desktops[desktop.desktop_id] = desktop
        return desktop

    def _from_pool(self, options: DesktopOptions) -> DockerDesktop | None:
        usual = self._default
        if (options.size, options.network, options.image) != (usual.size, usual.network, usual.image):
            return None
        desktop = self._pool.take()
        assert desktop is None or isinstance(desktop, DockerDesktop)
        return desktop

    async def _make(self, options: DesktopOptions, *, pooled: bool = False) -> DockerDesktop:
        try:
            image = await self._image(options)
            async with self._gate:
                return await self._launch(image, options)
        except EngineError as error:
            raise DesktopUnavailable(f"The Docker Engine refused: {error}", hint="Run `cambio-lab doctor`.") from error
        except TimeoutError as error:
            raise DesktopUnavailable("The desktop did not start in time.", hint="Is the machine overloaded?") from error

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
                        self._reference = await self.build(self._tell_all)
            finally:
                if options.progress is not None:
                    self._told.remove(options.progress)
        return self._reference

    def _tell_all(self, progress: Progress) -> None:
        for report in list(self._told):
            report(progress)

    async def build(self, report: Callable[[Progress], None] | None = None, *, force: bool = False) -> str:
        """Make sure that the image exists, saying how far it is; its reference."""

        def tell(progress: Progress) -> None:
            log.info("image: %s", progress.text)
            if report is not None:
                report(progress)

        extension = Path(self._settings.dockerfile) if self._settings.dockerfile else None
        return await build_image(self._engine, self._settings.image, tell, dockerfile=extension, force=force)

    async def _launch(self, image: str, options: DesktopOptions) -> DockerDesktop:
        placement = await self._networks.place(image, options.network, options.allow_hosts)
        container: str | None = None
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                creating = asyncio.create_task(self._create(image, options, placement))
                try:
                    container = await asyncio.shield(creating)
                except asyncio.CancelledError:
                    container = await creating  # the engine makes it all the same; it has to be removed
                    raise
                self._launching.add(container)
                desktop = await self._boot(container, image, placement)
                desktop.placement = placement
                return desktop
        except BaseException:
            await asyncio.shield(self._discard(container, placement))
            raise
        finally:
            self._launching.discard(container or "")

    async def _discard(self, container: str | None, placement: Placement) -> None:
        if container is not None:
            await remove(self._engine, container)
        await self._networks.remove(placement)

    async def _create(self, image: str, options: DesktopOptions, placement: Placement) -> str:
        labels = dict(options.labels) | {SERVER_LABEL: self.server_id, ROLE_LABEL: "desktop"}

        def create(client: Any) -> str:
            arguments = describe(
                client,
                image=image,
                size=options.size,
                network=placement.network,
                labels=labels,
                settings=self._settings,
                environment=placement.environment,
                offline_names=placement.offline_names,
            )
            identity: str = client.create_container(**arguments)["Id"]
            return identity

        container = await self._engine.call(create)
        await self._networks.join(placement, container)
        return container

    async def _boot(self, container: str, image: str, placement: Placement) -> _Owned:
        """Start it, tell it its password, and connect as soon as it says that Xvnc listens."""
        password = new_password()
        stream = await self._engine.hijack(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1", {})
        words = StartScript(stream)
        try:
            # Waits in the pipe until somebody reads it: one round trip less.
            stream.writer.write(base64.b64encode(obfuscate(password)) + b"\n")
            await self._engine.call(lambda client: client.start(container))
            port, digest, _ = await asyncio.gather(self._port(container), self._digest(image), words.ready())
        except BaseException:
            words.close()
            raise
        desktop = self._desktop(container, port, password, digest)
        desktop.listen(words)
        await desktop.open()
        return desktop

    async def _port(self, container: str) -> int:
        state = await self._engine.call(lambda client: client.inspect_container(container))
        bindings = state["NetworkSettings"]["Ports"].get(f"{VNC_PORT}/tcp") or []
        if not bindings:
            raise DesktopUnavailable("The desktop's container ended at once.", hint="See `docker logs` for it.")
        return int(bindings[0]["HostPort"])

    async def _digest(self, image: str) -> str:
        if image not in self._digests:
            inspected = await self._engine.call(lambda client: client.inspect_image(image))
            self._digests[image] = inspected["Id"]
        return self._digests[image]

    def _desktop(self, container: str, port: int, password: str, digest: str) -> _Owned:
        endpoint = VncEndpoint(host="127.0.0.1", port=port, password=password)
        return _Owned(self._engine, container, endpoint, digest, self._settings, self._networks, self._desktops)

    # After a restart
    async def adopt(self, desktop_id: str, session_id: str) -> DockerDesktop | None:
        """The password is read from the container itself: nothing on our disk holds it.

        ``None`` when it is gone. :class:`DesktopUnavailable` while it cannot be reached: then nothing is known yet.
        """
        try:
            state = await self._engine.call(lambda client: client.inspect_container(desktop_id))
            if not state["State"]["Running"] or state["Config"]["Labels"].get(SERVER_LABEL) != self.server_id:
                return None
            port = await self._port(desktop_id)
            probe = self._desktop(desktop_id, port, "", state["Image"])
            code, secret, _ = await probe.execute(["cat", "/run/desktop/vnc-password"])
            if code != 0:
                return None
            desktop = self._desktop(desktop_id, port, reveal(secret), state["Image"])
            desktop.placement = await self._networks.recall(state)
            await desktop.open()
            desktop.forget_keyboard()
        except (EngineError, DesktopLost) as error:
            if isinstance(error, EngineError) and error.status == 404:
                return None
            raise DesktopUnavailable(f"The desktop does not answer: {error}") from error
        self._desktops[desktop_id] = desktop
        return desktop

    async def reap(self, keep: frozenset[str]) -> list[str]:
        """Containers and networks with our label that no session and no pool holds."""
        keep = keep | self._pool.ids() | frozenset(self._desktops) | frozenset(self._launching)
        try:
            return await reap(self._engine, self.server_id, keep)
        except EngineError as error:
            raise DesktopUnavailable(f"The Docker Engine refused: {error}") from error

    async def health(self) -> ProviderHealth:
        if not await self._engine.answers():
            return ProviderHealth("docker", False, "no Docker Engine answers", START_DOCKER)
        reference = self._reference or image_tag(self._settings.image)
        summary = f"docker, {len(self._desktops)} in use, {len(self._pool)} ready"
        if self._reference is None and not await image_exists(self._engine, reference):
            return ProviderHealth("docker", True, f"{summary}; the image is not built yet", "cambio-lab image build")
        if self._networks.problem:
            summary += f"; network rules NOT enforced: {self._networks.problem}"
        return ProviderHealth("docker", True, summary)

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        try:
            async with asyncio.timeout(10):
                await self._pool.stop()
                gone = [desktop for name, desktop in self._desktops.items() if name not in keep]
                await asyncio.gather(*(desktop.close() for desktop in gone))
                for desktop in list(self._desktops.values()):
                    await desktop.release()
        except TimeoutError:
            log.warning("some containers were still being removed when the server stopped; its next start removes them")
        self._engine.close()


class _Owned(DockerDesktop):
    """Leaves its provider's list when it is closed, and takes its proxy with it."""

    placement: Placement | None = None

    def __init__(
        self,
        engine: Engine,
        container: str,
        endpoint: VncEndpoint,
        digest: str,
        settings: Settings,
        networks: Networks,
        listed: dict[str, DockerDesktop],
    ) -> None:
        super().__init__(engine, container, endpoint, digest, settings)
        self._networks = networks
        self._listed = listed

    async def _destroy(self) -> None:
        try:
            await super()._destroy()
            if self.placement is not None:
                await self._networks.remove(self.placement)
        finally:  # what could not be removed now is nobody's any more: `reap` takes it
            self._listed.pop(self.desktop_id, None)


def _size(text: str) -> Size:
    width, _, height = text.lower().partition("x")
    try:
        return Size(int(width), int(height))
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is not a screen size.", details={"display": "must look like 1280x800"}
        ) from None


def _mode(text: str) -> Any:
    if text not in ("open", "none"):
        raise InvalidRequest(f"{text!r} is no network mode.", details={"network": "must be open or none"})
    return text
