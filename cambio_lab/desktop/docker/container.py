"""One desktop in one container: how it is described to the engine, and how programs run in it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from cambio_lab.errors import DesktopLost, DesktopUnavailable
from cambio_lab.settings import Settings

from ..base import Size, VncEndpoint
from ..connected import ConnectedDesktop
from ..machine import until_managed
from .engine import Engine, EngineError, HijackedStream

log = logging.getLogger(__name__)

HOME = "/home/user"
SERVER_LABEL = "org.cambio-lab.server"
ROLE_LABEL = "org.cambio-lab.role"
VNC_PORT = 5900
_TOKEN = "CAMBIO_LAB_PROCESS"
_ENGINE_PATIENCE = 30.0
"""Seconds for which a desktop that is cut off waits for an engine that does not answer."""

# Finds what descends from one exec by a variable that its children inherit, wherever they hid since.
_KILL = (
    'for f in $(grep -lzsx -- "$1" /proc/[0-9]*/environ); do p=${f#/proc/}; p=${p%/environ}; '
    'g=$(ps -o pgid= -p "$p" | tr -d " "); case " $2 " in *" $g "*) ;; *) kill -KILL "$p" 2>/dev/null;; esac; done; '
    "echo done"
)


class ExecProcess:
    """A program started by the engine in a running container."""

    def __init__(self, engine: Engine, container: str, exec_id: str, token: str, stream: HijackedStream) -> None:
        self._engine = engine
        self._container = container
        self._exec_id = exec_id
        self._token = token
        self._stream = stream

    async def write(self, data: bytes) -> None:
        self._stream.writer.write(data)
        await self._stream.writer.drain()

    async def close_stdin(self) -> None:
        if self._stream.writer.can_write_eof():
            self._stream.writer.write_eof()

    async def read(self) -> tuple[int, bytes] | None:
        return await self._stream.read()

    async def wait(self) -> int:
        # The stream ends a moment before the engine has noted the exit code.
        for pause in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
            await asyncio.sleep(pause)
            state = await self._engine.call(lambda client: client.exec_inspect(self._exec_id))
            if not state["Running"]:
                return int(state["ExitCode"])
        raise DesktopLost("A program in the desktop closed its output but did not end.")

    async def kill(self, spare: Sequence[int] = ()) -> None:
        arguments = [f"{_TOKEN}={self._token}", " ".join(map(str, spare))]
        killer = await start_exec(self._engine, self._container, ["sh", "-c", _KILL, "kill", *arguments], {})
        # Its word, not its end: the engine tells that seconds later when a killed program's children live on.
        said = b""
        while b"done" not in said and (piece := await killer.read()) is not None:
            said += piece[1]
        killer.abandon()

    def abandon(self) -> None:
        self._stream.close()


async def start_exec(
    engine: Engine, container: str, argv: Sequence[str], environment: Mapping[str, str]
) -> ExecProcess:
    """Start ``argv`` as the container's own user. :class:`~cambio_lab.errors.DesktopLost` when it is gone."""
    token = secrets.token_hex(8)
    variables = dict(environment) | {_TOKEN: token}
    try:
        created = await engine.call(
            lambda client: client.exec_create(
                container, list(argv), stdin=True, environment=variables, workdir=environment.get("PWD", HOME)
            )
        )
        stream = await engine.hijack(f"/exec/{created['Id']}/start", {"Detach": False, "Tty": False})
    except EngineError as error:
        # The engine refuses to start a program in a paused container, which would hang them both.
        frozen = error.status == 409 and "paused" in str(error)
        state = "is frozen" if frozen else "is gone or does not answer"
        raise DesktopLost(f"The desktop's container {state}.") from error
    except OSError as error:
        raise DesktopLost("The Docker Engine does not answer.") from error
    return ExecProcess(engine, container, created["Id"], token, stream)


class StartScript:
    """What ``start-desktop`` says on its standard output."""

    def __init__(self, stream: HijackedStream) -> None:
        self._stream = stream
        self._said = b""

    async def listening(self) -> None:
        """Xvnc can be connected to. :class:`DesktopUnavailable` as of :meth:`ready`."""
        await self._need(b"listening\n")

    async def ready(self) -> None:
        """It has its keymap. :class:`DesktopUnavailable` with what was said instead if the container ends."""
        await self._need(b"ready\n")

    async def _need(self, word: bytes) -> None:
        if not await self._until(word):
            words = self._said.decode("utf-8", "replace").strip().splitlines()
            raise DesktopUnavailable(f"The desktop did not start: {words[-1] if words else 'it ended at once'}.")

    async def managed(self) -> None:
        """The window manager has the screen, or nothing more will be said."""
        await self._until(b"managed\n")

    async def _until(self, word: bytes) -> bool:
        while word not in self._said:
            piece = await self._stream.read()
            if piece is None:
                return False
            self._said = (self._said + piece[1])[-4096:]
        return True

    def close(self) -> None:
        self._stream.close()


class ContainerMachine:
    """Programs run in the container as its unprivileged user."""

    home = HOME
    roots: Sequence[str] = (HOME, "/tmp")
    python = "python3"
    managed: asyncio.Task[None] | None = None

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self._container = container
        self.keyed = asyncio.Event()
        self.keyed.set()

    async def spawn(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> ExecProcess:
        await until_managed(self)
        return await start_exec(self._engine, self._container, argv, environment or {})


class DockerDesktop(ConnectedDesktop):
    """A desktop whose body is a container."""

    isolated = True

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

    def listen(self, words: StartScript) -> None:
        """Keys are pressed and programs start when the start script says that they may."""
        self.machine.keyed.clear()

        async def heed() -> None:
            await words.ready()
            self.machine.keyed.set()
            await words.managed()

        def heard(task: asyncio.Task[None]) -> None:
            words.close()
            self.machine.keyed.set()  # whoever waits finds out by itself that the desktop is gone
            if not task.cancelled() and (error := task.exception()) is not None:
                log.info("%s: %s", self.desktop_id[:12], error)

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
        # When processors are short, the server and whoever waits for it come first.
        cpu_shares=512,
        pids_limit=settings.desktop_pids,
        oom_score_adj=500,
        shm_size=limit,
        tmpfs={
            HOME: f"size={limit},{own},exec",
            "/tmp": f"size={limit},mode=1777,nosuid,nodev,exec",
            "/run/desktop": f"size={16 * 1024**2},{own}",
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
        "user": "1000:1000",
        "environment": dict(environment),
        "labels": dict(labels),
        "ports": [VNC_PORT],
        "stdin_open": True,
        "host_config": host,
    }
