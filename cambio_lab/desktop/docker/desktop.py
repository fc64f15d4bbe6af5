"""A desktop in a container, and the way to its VNC server through the engine."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from cambio_lab.errors import DesktopLost, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import VncEndpoint
from ..connected import ConnectedDesktop, Forget
from ..machine import STDOUT
from ..provider import DesktopOptions
from .containers import (
    HOME,
    ROLE_LABEL,
    SEALED,
    SERVER_LABEL,
    XVNC,
    ContainerMachine,
    ExecProcess,
    memory_folder,
    remove,
    start_exec,
)
from .engine import Engine, EngineError, HijackedStream
from .network import CLOSED, Networks, Placement

log = logging.getLogger(__name__)

_ENGINE_PATIENCE = 30.0
"""Seconds for which a desktop that is cut off waits for an engine that does not answer."""


async def need(output: HijackedStream, word: bytes) -> None:
    """Wait until a start script said ``word``. :class:`DesktopUnavailable` with what it said instead if it ends."""
    if not await output.until(word + b"\n"):
        words = output.said.decode("utf-8", "replace").strip().splitlines()
        raise DesktopUnavailable(f"The desktop did not start: {words[-1] if words else 'it ended at once'}.")


class DockerDesktop(ConnectedDesktop):
    """A desktop whose body is a container, of which ``state`` is what the engine says; it takes its proxy with it."""

    isolated = True
    outlives_server = True
    placement: Placement | None = None
    relay: Relay | None = None

    def __init__(
        self,
        engine: Engine,
        state: dict[str, Any],
        settings: Settings,
        networks: Networks,
        forget: Forget,
        endpoint: VncEndpoint,
    ) -> None:
        container = state["Id"]
        super().__init__(container, endpoint, ContainerMachine(engine, container), settings, forget)
        self.container_id = container
        self.vnc_port = endpoint.port
        self.image_digest = state["Image"]
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

    def listen(self, server: HijackedStream, session: asyncio.Task[None]) -> None:
        """Press keys and start programs only once the start scripts say that they may."""

        async def heed() -> None:
            await need(server, b"ready")
            self.machine.keyed.set()
            await session

        def heard(_: asyncio.Task[None]) -> None:
            server.abandon()
            session.cancel()

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


def describe(
    client: Any, server_id: str, image: str, settings: Settings, options: DesktopOptions, place: Placement, podman: str
) -> dict[str, Any]:
    """The arguments of ``create_container``: everything DESIGN's isolation asks for, and no secret."""
    limit = settings.desktop_tmp
    host = client.create_host_config(
        **SEALED,
        mem_limit=settings.desktop_memory,
        memswap_limit=settings.desktop_memory,
        nano_cpus=int(settings.desktop_cpus * 1e9),
        pids_limit=settings.desktop_pids,
        oom_score_adj=500,
        shm_size=limit,
        tmpfs={
            HOME: memory_folder(podman, limit, 1000, "exec"),
            "/tmp": f"size={limit},mode=1777,nosuid,nodev,exec",
            "/run/desktop": memory_folder(podman, 16 * 1024**2, 1000),
            "/run/xvnc": memory_folder(podman, "1m", 900, "noexec"),
        },
        port_bindings={VNC_PORT: ("127.0.0.1",)},
        network_mode=place.network,
        # Names are asked of an address that does not exist: a lookup would be a way out of a closed network.
        dns=["192.0.2.1"] if place.network == CLOSED else None,
    )
    return {
        "image": image,
        "command": ["start-desktop", str(options.size)],
        "hostname": "desktop",
        "user": XVNC,
        "working_dir": "/",
        "environment": place.environment,
        "labels": {SERVER_LABEL: server_id, ROLE_LABEL: "desktop"},
        "ports": [VNC_PORT],
        "stdin_open": True,
        "host_config": host,
    }


_AT_ONCE = 32
"""Connections to one desktop: the server's own and its viewers'."""

# Runs in the container as the user who owns Xvnc, so that programs of the desktop cannot write into the stream.
_PROGRAM = """
import os, socket, threading
server = socket.create_connection(("127.0.0.1", 5900))
def send():
    while data := os.read(0, 1 << 16):
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := server.recv(1 << 18):
    while data:
        data = data[os.write(1, data):]
"""


class Relay:
    """A Unix socket of this user alone; each connection to it is a program in the container. ``path`` says where."""

    def __init__(self, engine: Engine, container: str, folder: Path) -> None:
        self._engine = engine
        self._container = container
        self._folder = folder
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.path = str(folder / "vnc")

    @classmethod
    async def start(cls, engine: Engine, container: str) -> Relay:
        # Not below a long TMPDIR: the path of a socket has at most 107 bytes.
        parent = None if len(tempfile.gettempdir()) < 60 else "/tmp"
        relay = cls(engine, container, Path(await asyncio.to_thread(tempfile.mkdtemp, "", "cambio-vnc-", parent)))
        try:
            relay._server = await asyncio.start_unix_server(relay._accept, relay.path, limit=1 << 18)
        except BaseException:
            await relay.close()
            raise
        return relay

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _AT_ONCE:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._relay(reader, writer), name="vnc-relay")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until one side ends; each waits for the other to take them."""
        process: ExecProcess | None = None
        try:
            process = await start_exec(self._engine, self._container, ["python3", "-IS", "-c", _PROGRAM], user=XVNC)
            ways = [asyncio.create_task(_up(reader, process)), asyncio.create_task(_down(process, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
        except DesktopLost as error:
            log.info("VNC relay failed: container=%s error=%s", self._container[:12], error)
        finally:
            if process is not None:
                process.abandon()
            writer.transport.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def _up(reader: asyncio.StreamReader, process: ExecProcess) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            await process.write(data)


async def _down(process: ExecProcess, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while (piece := await process.read()) is not None:
            if piece[0] == STDOUT:
                writer.write(piece[1])
                await writer.drain()
