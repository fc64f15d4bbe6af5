"""A desktop in a container: made and connected to, or an earlier one, adopted."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from contextlib import suppress
from importlib import import_module
from typing import Any

from cambio_lab.errors import DesktopLost, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..connected import ConnectedDesktop, Forget
from ..machine import run
from ..rfb import stream as rfb
from .containers import (
    SERVER_LABEL,
    XVNC,
    ContainerMachine,
    ExecProcess,
    Relay,
    remove,
    start_attached,
    start_exec,
)
from .engine import Engine, EngineError, HijackedStream
from .network import Networks, Placement

log = logging.getLogger(__name__)

_ENGINE_PATIENCE = 30.0
"""Seconds for which a desktop that is cut off waits for an engine that does not answer."""


async def need(output: HijackedStream, word: bytes) -> None:
    """Wait until a start script said ``word``. :class:`DesktopUnavailable` with what it said instead if it ends."""
    if not await output.until(word + b"\n"):
        words = output.said.decode("utf-8", "replace").strip().splitlines()
        raise DesktopUnavailable(f"The desktop did not start: {words[-1] if words else 'it ended at once'}.")


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

    def listen(self, server: HijackedStream, session: asyncio.Task[ExecProcess]) -> None:
        """Press keys and start programs only once the start scripts say that they may."""

        async def heed() -> None:
            await need(server, b"ready")
            self.machine.keyed.set()
            await (await asyncio.shield(session)).stream.until(b"managed\n")

        def heard(_: asyncio.Task[None]) -> None:
            server.close()
            abandon(session)

        self.follow_start(heed()).add_done_callback(heard)

    async def release(self) -> None:
        await super().release()
        if self.relay is not None:
            await self.relay.close()

    async def _destroy(self) -> None:
        await remove(self._engine, self.desktop_id)
        if self.placement is not None:
            await self._networks.remove(self.placement)


VNC_PORT = 5900
_PASSWORD_SECONDS = 5.0


class Launcher:
    """Connects to containers of one provider. ``forget`` is told of desktops that close."""

    def __init__(self, engine: Engine, settings: Settings, server_id: str, networks: Networks, forget: Forget) -> None:
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

    async def boot(self, container: str, image: str) -> DockerDesktop:
        """Start it, tell it its password, and connect as soon as it says that Xvnc listens."""
        password = secrets.token_urlsafe(6)  # eight characters: all that VncAuth can use
        server = await start_attached(self._engine, container)
        session: asyncio.Task[ExecProcess] | None = None
        listening = asyncio.Event()
        try:
            server.writer.write(base64.b64encode(rfb.obfuscate(password)) + b"\n")
            session = asyncio.create_task(self._start_session(container, listening), name="desktop-session")
            port, digest, _ = await asyncio.gather(
                self._port(container), self._digest(image), need(server, b"listening")
            )
            listening.set()
            desktop = await self._connect(container, port, password, digest)
        except BaseException:
            server.close()
            if session is not None:
                abandon(session)
            raise
        desktop.listen(server, session)
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
            machine = ContainerMachine(self._engine, container, XVNC)  # the user who alone may read the password
            read = ["head", "-c8", "/run/xvnc/password"]
            code, secret, _ = await run(machine, read, timeout=_PASSWORD_SECONDS, limit=8)
            if code != 0 or len(secret) != 8:
                return None
            placement = await self._networks.recall(state)
            desktop = await self._connect(container, port, rfb.reveal(secret), state["Image"])
            desktop.placement = placement
            desktop.forget_keyboard()
        except (EngineError, DesktopLost, TimeoutError) as error:
            if isinstance(error, EngineError) and error.status == 404:
                return None
            raise DesktopUnavailable(f"The desktop does not answer: {error or 'it timed out'}") from error
        return desktop
