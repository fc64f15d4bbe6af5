"""One desktop in one container: how it is described to the engine, and how programs run in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import Size, VncEndpoint
from ..connected import ConnectedDesktop
from ..machine import Process
from .engine import Engine, EngineError, HijackedStream
from .exec import HOME, XVNC, ContainerMachine, ExecProcess

log = logging.getLogger(__name__)

SERVER_LABEL = "org.cambio-lab.server"
ROLE_LABEL = "org.cambio-lab.role"
VNC_PORT = 5900
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
    """A desktop whose body is a container."""

    isolated = True
    outlives_server = True

    def __init__(
        self, engine: Engine, container: str, endpoint: VncEndpoint, image_digest: str | None, settings: Settings
    ) -> None:
        super().__init__(container, endpoint, ContainerMachine(engine, container), settings)
        self.container_id: str | None = container
        self.vnc_port = endpoint.port
        self.image_digest = image_digest
        self._engine = engine

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
        if self.machine.managed is not None:
            self.machine.managed.cancel()
            await asyncio.wait([self.machine.managed])
        await super().release()

    async def _destroy(self) -> None:
        await remove(self._engine, self.desktop_id)


async def create(engine: Engine, arguments: Callable[[Any], Mapping[str, Any]]) -> str:
    """A new container's id; ``arguments(client)`` are those of ``create_container``.

    When the caller is cancelled meanwhile, the engine makes it all the same: then it is removed.
    """

    def make(client: Any) -> str:
        identity: str = client.create_container(**arguments(client))["Id"]
        return identity

    creating = asyncio.create_task(engine.call(make))
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        with suppress(EngineError, DesktopUnavailable):
            await remove(engine, await creating)
        raise


async def remove(engine: Engine, container: str) -> None:
    """Kill and remove; quiet when it is gone already or being removed, else :class:`EngineError`."""
    try:
        await engine.call(lambda client: client.remove_container(container, force=True, v=True))
    except EngineError as error:
        if error.status not in (404, 409):
            raise


def describe(
    client: Any,
    *,
    image: str,
    size: Size,
    network: str,
    labels: Mapping[str, str],
    settings: Settings,
    environment: Mapping[str, str],
    offline_names: bool,
) -> dict[str, Any]:
    """The arguments of ``create_container``: everything DESIGN's isolation asks for, and no secret."""
    limit = settings.desktop_tmp
    own = "uid=1000,gid=1000,mode=0700,nosuid,nodev"
    host = client.create_host_config(
        init=True,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=settings.desktop_memory,
        memswap_limit=settings.desktop_memory,
        nano_cpus=int(settings.desktop_cpus * 1e9),
        # When processors are short, the server and its clients come first.
        cpu_shares=512,
        pids_limit=settings.desktop_pids,
        oom_score_adj=500,
        shm_size=limit,
        tmpfs={
            HOME: f"size={limit},{own},exec",
            "/tmp": f"size={limit},mode=1777,nosuid,nodev,exec",
            "/run/desktop": f"size={16 * 1024**2},{own}",
            "/run/xvnc": "size=1m,uid=900,gid=900,mode=0700,nosuid,nodev,noexec",
        },
        port_bindings={VNC_PORT: ("127.0.0.1",)},
        network_mode=network,
        log_config={"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        # Names are asked of an address that does not exist: a lookup would be a way out of a closed network.
        dns=["192.0.2.1"] if offline_names else None,
    )
    return {
        "image": image,
        "command": ["start-desktop", str(size)],
        "hostname": "desktop",
        "user": XVNC,
        "working_dir": "/",
        "environment": dict(environment),
        "labels": dict(labels),
        "ports": [VNC_PORT],
        "stdin_open": True,
        "host_config": host,
    }
