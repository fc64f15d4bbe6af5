"""One container, from its description to a connected desktop; or an earlier one, taken up again."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from cambio_lab.errors import DesktopLost, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import DesktopOptions, VncEndpoint
from ..rfb import authentication
from .container import ROLE_LABEL, SERVER_LABEL, VNC_PORT, DockerDesktop, StartScript, create, describe, remove
from .engine import Engine, EngineError
from .network import Networks, Placement

_READY_TIMEOUT = 60.0


class Launcher:
    """Makes containers for one provider. ``listed`` are its desktops by id: those that close leave it."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        server_id: str,
        networks: Networks,
        listed: dict[str, DockerDesktop],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._server_id = server_id
        self._networks = networks
        self._listed = listed
        self._digests: dict[str, str] = {}

    async def prepare(self, image: str) -> None:
        """What all containers of ``image`` need, before somebody waits for the first."""
        await asyncio.to_thread(authentication.load)
        await self._networks.prepare(image)
        await self._digest(image)

    async def launch(self, image: str, options: DesktopOptions) -> OwnedDesktop:
        """A new container, connected to. Whatever goes wrong, cancellation included, nothing of it is left."""
        placement = await self._networks.place(image, options.network, options.allow_hosts)
        container: str | None = None
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                container = await create(self._engine, lambda client: self._describe(client, image, options, placement))
                await self._networks.join(placement, container)
                desktop = await self._boot(container, image)
                desktop.placement = placement
                return desktop
        except BaseException:
            await asyncio.shield(self._discard(container, placement))
            raise

    async def _discard(self, container: str | None, placement: Placement) -> None:
        if container is not None:
            await remove(self._engine, container)
        await self._networks.remove(placement)

    def _describe(self, client: Any, image: str, options: DesktopOptions, placement: Placement) -> dict[str, Any]:
        return describe(
            client,
            image=image,
            size=options.size,
            network=placement.network,
            labels=dict(options.labels) | {SERVER_LABEL: self._server_id, ROLE_LABEL: "desktop"},
            settings=self._settings,
            environment=placement.environment,
            offline_names=placement.offline_names,
        )

    async def _boot(self, container: str, image: str) -> OwnedDesktop:
        """Start it, tell it its password, and connect as soon as it says that Xvnc listens."""
        password = authentication.new_password()
        stream = await self._engine.hijack(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1", {})
        words = StartScript(stream)
        try:
            # Waits in the pipe until somebody reads it: one round trip less.
            stream.writer.write(base64.b64encode(authentication.obfuscate(password)) + b"\n")
            await self._engine.finish(lambda client: client.start(container))
            port, digest, _ = await asyncio.gather(self._port(container), self._digest(image), words.listening())
            desktop = self._desktop(container, port, password, digest)
            await desktop.open()
        except BaseException:
            words.close()
            raise
        desktop.listen(words)
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

    def _desktop(self, container: str, port: int, password: str, digest: str) -> OwnedDesktop:
        endpoint = VncEndpoint(host="127.0.0.1", port=port, password=password)
        return OwnedDesktop(self._engine, container, endpoint, digest, self._settings, self._networks, self._listed)

    async def adopt(self, container: str) -> OwnedDesktop | None:
        """See :meth:`DockerProvider.adopt`."""
        try:
            state = await self._engine.call(lambda client: client.inspect_container(container))
            if not state["State"]["Running"] or state["Config"]["Labels"].get(SERVER_LABEL) != self._server_id:
                return None
            port = await self._port(container)
            probe = self._desktop(container, port, "", state["Image"])
            code, secret, _ = await probe.execute(["cat", "/run/desktop/vnc-password"])
            if code != 0:
                return None
            desktop = self._desktop(container, port, authentication.reveal(secret), state["Image"])
            desktop.placement = await self._networks.recall(state)
            await desktop.open()
            desktop.forget_keyboard()
        except (EngineError, DesktopLost) as error:
            if isinstance(error, EngineError) and error.status == 404:
                return None
            raise DesktopUnavailable(f"The desktop does not answer: {error}") from error
        return desktop


class OwnedDesktop(DockerDesktop):
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

    async def release(self) -> None:
        try:
            await super().release()
        finally:  # nobody's any more: `reap` takes it, unless it is kept for somebody
            if self._listed.get(self.desktop_id) is self:
                del self._listed[self.desktop_id]

    async def _destroy(self) -> None:
        await super()._destroy()
        if self.placement is not None:
            await self._networks.remove(self.placement)
