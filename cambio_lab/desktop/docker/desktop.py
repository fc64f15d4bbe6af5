"""A desktop in a container: made and connected to, or an earlier one, adopted."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

from cambio_lab.errors import DesktopLost, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..connected import ConnectedDesktop, Forget
from ..machine import Process, run
from ..provider import DesktopOptions
from ..rfb import stream as rfb
from .containers import (
    HOME,
    ROLE_LABEL,
    SEALED,
    SERVER_LABEL,
    XVNC,
    ContainerMachine,
    ExecProcess,
    Relay,
    create,
    memory_folder,
    remove,
    start_attached,
    start_exec,
)
from .engine import Engine, EngineError, HijackedStream
from .network import Networks, Placement

log = logging.getLogger(__name__)

_ENGINE_PATIENCE = 30.0
"""Seconds for which a desktop that is cut off waits for an engine that does not answer."""


class ScriptOutput:
    """What one of the image's start scripts says on its standard output; hostile, so only its last 4 KB are kept."""

    def __init__(self, stream: HijackedStream | Process) -> None:
        self._stream = stream
        self._said = b""

    async def need(self, word: str) -> None:
        """Wait for the line ``word``. :class:`DesktopUnavailable` with what was said instead if the script ends."""
        if not await self.until(word):
            words = self._said.decode("utf-8", "replace").strip().splitlines()
            raise DesktopUnavailable(f"The desktop did not start: {words[-1] if words else 'it ended at once'}.")

    async def until(self, word: str) -> bool:
        """Wait for the line ``word``; false when the script ends without it."""
        while f"{word}\n".encode() not in self._said:
            piece = await self._stream.read()
            if piece is None:
                return False
            self._said = (self._said + piece[1])[-4096:]
        return True


def abandon(starting: asyncio.Task[ExecProcess]) -> None:
    """Release the streams of a program that may still be starting."""

    def release(task: asyncio.Task[ExecProcess]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().abandon()

    starting.cancel()
    starting.add_done_callback(release)


class DockerDesktop(ConnectedDesktop):
    """A desktop whose body is a container; it takes its proxy with it."""

    isolated = True
    outlives_server = True
    placement: Placement | None = None
    relay: Relay | None = None

    def __init__(
        self,
        engine: Engine,
        container: str,
        endpoint: VncEndpoint,
        image_digest: str | None,
        settings: Settings,
        networks: Networks,
        forget: Forget,
    ) -> None:
        super().__init__(container, endpoint, ContainerMachine(engine, container), settings, forget)
        self.container_id = container
        self.vnc_port = endpoint.port
        self.image_digest = image_digest
        self._engine = engine
        self._networks = networks

    async def _state(self) -> dict[str, Any]:
        """What the engine says of it; empty when it knows it no more."""
        try:
            inspected = await self._engine.call(lambda client: client.inspect_container(self.desktop_id))
        except EngineError:
            return {}
        state: dict[str, Any] = inspected["State"]
        return state

    async def alive(self) -> bool:
        """An engine that does not answer may be restarting, and its containers may outlive that: it is waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENGINE_PATIENCE):
                while True:
                    with suppress(DesktopUnavailable):
                        return bool((await self._state()).get("Running"))
                    await asyncio.sleep(0.5)
        return False

    async def cause(self) -> str:
        try:
            state = await self._state()
        except DesktopUnavailable:
            return "The desktop and its Docker Engine do not answer."
        if not state:
            return "The desktop's container was removed."
        if state.get("OOMKilled"):
            return "The desktop ran out of memory."
        return f"The desktop's container stopped with exit code {state.get('ExitCode')}."

    def listen(self, server: HijackedStream, said: ScriptOutput, session: asyncio.Task[ExecProcess]) -> None:
        """Press keys and start programs only once the start scripts say that they may."""
        self.machine.keyed.clear()

        async def heed() -> None:
            await said.need("ready")
            self.machine.keyed.set()
            await ScriptOutput(await asyncio.shield(session)).until("managed")

        def heard(task: asyncio.Task[None]) -> None:
            server.close()
            abandon(session)
            self.machine.keyed.set()  # a caller that waits finds out by itself that the desktop is gone
            if not task.cancelled() and (error := task.exception()) is not None:
                log.info("desktop not ready: container=%s error=%s", self.desktop_id[:12], error)

        self.machine.managed = asyncio.create_task(heed(), name="window-manager")
        self.machine.managed.add_done_callback(heard)

    async def release(self) -> None:
        await super().release()
        if self.relay is not None:
            await self.relay.close()

    async def _destroy(self) -> None:
        await remove(self._engine, self.desktop_id)
        if self.placement is not None:
            await self._networks.remove(self.placement)


VNC_PORT = 5900
_READY_TIMEOUT = 60.0
_PASSWORD_TIMEOUT = 5.0


class Launcher:
    """Makes containers for one provider. ``forget`` is told of desktops that close."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        server_id: str,
        networks: Networks,
        forget: Forget,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._server_id = server_id
        self._networks = networks
        self._forget = forget
        self._digests: dict[str, str] = {}
        self.direct: bool | None = None if engine.is_local else False
        """Whether published ports are reachable from here; ``None``: not known yet."""

    async def prepare(self, image: str) -> None:
        """Make what all containers of ``image`` need before a caller waits for the first."""
        await asyncio.to_thread(import_module, "Crypto.Cipher.DES")
        await self._networks.prepare(image)
        await self._digest(image)

    async def launch(self, image: str, options: DesktopOptions) -> DockerDesktop:
        """A new container, connected to. Whatever goes wrong, cancellation included, nothing of it is left."""
        placement = await self._networks.place(image, options.network, options.allow_hosts)
        container: str | None = None
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                podman = await self._engine.podman()
                describe = partial(self._describe, image=image, options=options, placement=placement, podman=podman)
                container = await create(self._engine, describe)
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
            "labels": {**options.labels, SERVER_LABEL: self._server_id, ROLE_LABEL: "desktop"},
            "ports": [VNC_PORT],
            "stdin_open": True,
            "host_config": host,
        }

    async def _boot(self, container: str, image: str) -> DockerDesktop:
        """Start it, tell it its password, and connect as soon as it says that Xvnc listens."""
        password = secrets.token_urlsafe(6)  # eight characters: all that VncAuth can use
        server = await start_attached(self._engine, container)
        said = ScriptOutput(server)
        session: asyncio.Task[ExecProcess] | None = None
        listening = asyncio.Event()
        try:
            server.writer.write(base64.b64encode(rfb.obfuscate(password)) + b"\n")
            session = asyncio.create_task(self._start_session(container, listening), name="desktop-session")
            port, digest, _ = await asyncio.gather(self._port(container), self._digest(image), said.need("listening"))
            listening.set()
            desktop = await self._connect(container, port, password, digest)
        except BaseException:
            server.close()
            if session is not None:
                abandon(session)
            raise
        desktop.listen(server, said, session)
        return desktop

    async def _start_session(self, container: str, listening: asyncio.Event) -> ExecProcess:
        """Start window manager and panel; their script waits for a line, so that it starts while Xvnc does."""
        session = await start_exec(self._engine, container, ["start-session"])
        try:
            await listening.wait()
            await session.write(b"\n")
        except BaseException:
            session.abandon()
            raise
        return session

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

    async def _connect(self, container: str, port: int, password: str, digest: str) -> DockerDesktop:
        """Open a running desktop: by its published port, or through the engine where that leads nowhere."""
        if self.direct is not False:
            desktop = self._desktop(container, VncEndpoint("127.0.0.1", port, password=password), digest)
            try:
                await desktop.open()
            except DesktopLost as error:
                if self.direct:
                    raise
                log.info("published port not reachable; VNC goes through the engine: port=%s error=%s", port, error)
            else:
                self.direct = True
                return desktop
        relay = await Relay.start(self._engine, container)
        try:
            desktop = self._desktop(container, VncEndpoint(unix_path=relay.path, password=password), digest)
            await desktop.open()
        except BaseException:
            await asyncio.shield(relay.close())
            raise
        self.direct = False
        desktop.relay = relay
        return desktop

    def _desktop(self, container: str, endpoint: VncEndpoint, digest: str) -> DockerDesktop:
        return DockerDesktop(self._engine, container, endpoint, digest, self._settings, self._networks, self._forget)

    async def adopt(self, container: str) -> DockerDesktop | None:
        """See :meth:`DockerProvider.adopt`."""
        try:
            state = await self._engine.call(lambda client: client.inspect_container(container))
            if not state["State"]["Running"] or state["Config"]["Labels"].get(SERVER_LABEL) != self._server_id:
                return None
            port = await self._port(container)
            password = await self._password(container)
            if password is None:
                return None
            placement = await self._networks.recall(state)
            desktop = await self._connect(container, port, password, state["Image"])
            desktop.placement = placement
            desktop.forget_keyboard()
        except (EngineError, DesktopLost, TimeoutError) as error:
            if isinstance(error, EngineError) and error.status == 404:
                return None
            raise DesktopUnavailable(f"The desktop does not answer: {error or 'it timed out'}") from error
        return desktop

    async def _password(self, container: str) -> str | None:
        """Read the VNC password inside the container, as the user who alone may; ``None`` if there is none."""
        machine = ContainerMachine(self._engine, container, XVNC)
        code, secret, _ = await run(machine, ["head", "-c8", "/run/xvnc/password"], timeout=_PASSWORD_TIMEOUT, limit=8)
        return rfb.reveal(secret) if code == 0 and len(secret) == 8 else None
