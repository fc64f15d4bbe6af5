"""Containers of this server, and programs in them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from typing import Any, TypeVar

from cambio_lab.errors import DesktopLost, DesktopUnavailable

from ..machine import Machine
from .engine import Engine, EngineError, HijackedStream, Streams

log = logging.getLogger(__name__)

SERVER_LABEL = "org.cambio-lab.server"
ROLE_LABEL = "org.cambio-lab.role"
T = TypeVar("T")
SEALED: Mapping[str, Any] = {
    "init": True,
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "cpu_shares": 512,  # when processors are short, the server and its clients come first
    "log_config": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
}
"""The host configuration of every container that lives as long as a desktop."""


async def create(engine: Engine, arguments: Callable[[Any], Mapping[str, Any]]) -> str:
    """A new container's id; ``arguments(client)`` are those of ``create_container``.

    When the caller is cancelled meanwhile, the engine makes it all the same: then it is removed.
    """

    creating = asyncio.create_task(engine.call(lambda client: str(client.create_container(**arguments(client))["Id"])))
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        with suppress(EngineError, DesktopUnavailable):
            await remove(engine, await creating)
        raise


async def started(make: Callable[[], Awaitable[T]]) -> T:
    """Await ``make()``, which makes and starts a container; once more when the engine's runtime could not start it.

    With Docker 20.10 and runc 1.1.5, 3 of 1,600 containers on a busy machine were started before their files were
    mounted: "stat /sbin/docker-init: permission denied". They differed in nothing from the others.
    """
    try:
        return await make()
    except (EngineError, DesktopUnavailable) as error:
        if "OCI runtime create failed" not in str(error):
            raise
        log.warning("a container was not started; another one is made: %s", error)
    return await make()


async def start_attached(engine: Engine, container: str) -> HijackedStream:
    """Start a created container; its standard streams.

    Attached to before, so that no output is lost; Podman refuses that, so there the program must wait for input first.
    """
    late = bool(await engine.podman())
    path = f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    stream = None if late else HijackedStream(*await engine.hijack(path, {}))
    try:
        await engine.finish(lambda client: client.start(container))
    except BaseException:
        if stream is not None:
            stream.abandon()
        raise
    return stream or HijackedStream(*await engine.hijack(path, {}))


def memory_folder(podman: str, size: int | str, owner: int, *flags: str) -> str:
    """The mount options of a folder in memory. Podman knows no owner: there any user of the container may write."""
    rights = ("notmpcopyup",) if podman else (f"uid={owner}", f"gid={owner}", "mode=0700")
    return ",".join((f"size={size}", *rights, "nosuid", "nodev", *flags))


async def remove(engine: Engine, container: str) -> None:
    """Kill and remove; quiet when it is gone already or being removed, else :class:`EngineError`."""
    try:
        await engine.call(lambda client: client.remove_container(container, force=True, v=True))
    except EngineError as error:
        if error.status not in (404, 409):
            raise


async def remove_network(engine: Engine, name: str) -> None:
    try:
        await engine.call(methodcaller("remove_network", name))
    except EngineError as error:
        log.warning("a network could not be removed: %s", error)


async def reap(engine: Engine, server_id: str, keep: frozenset[str]) -> list[str]:
    """Remove containers and networks with this server's label, except ``keep`` and what serves them.

    Returns the ids of the removed containers.
    """
    ours = {"label": f"{SERVER_LABEL}={server_id}"}
    found = {item["Id"]: item for item in await engine.call(lambda client: client.containers(all=True, filters=ours))}
    networks = {name: set(item["NetworkSettings"]["Networks"]) for name, item in found.items()}
    kept_networks = {network for name in keep & found.keys() for network in networks[name]}
    # A proxy that serves stands on the inner network of a desktop that stays.
    inner = {network for network in kept_networks if network.startswith("cambio-a")}
    proxies = {name for name, item in found.items() if item["Labels"].get(ROLE_LABEL) == "proxy"}
    serving = {name for name in proxies if networks[name] & inner}
    gone = [name for name in found if name not in keep | serving]
    await asyncio.gather(*(remove(engine, name) for name in gone))
    for network in await engine.call(lambda client: client.networks(filters=ours)):
        if network["Name"] not in kept_networks:
            await remove_network(engine, network["Name"])
    return gone


HOME = "/home/user"
USER, XVNC = "1000:1000", "900:900"
"""Who programs run as, and who the X server runs as: the first can neither signal nor trace the second."""
_TOKEN = "CAMBIO_LAB_PROCESS"

# Finds what descends from one exec by a variable that its children inherit, wherever they hid since.
_KILL = (
    'for f in $(grep -lzsx -- "$1" /proc/[0-9]*/environ); do p=${f#/proc/}; p=${p%/environ}; '
    'g=$(ps -o pgid= -p "$p" | tr -d " "); case " $2 " in *" $g "*) ;; *) kill -KILL "$p" 2>/dev/null;; esac; done; '
    "echo done"
)


class ExecProcess(HijackedStream):
    """A program started by the engine in a running container."""

    def __init__(self, streams: Streams, engine: Engine, container: str, exec_id: str, token: str) -> None:
        super().__init__(*streams)
        self._engine, self._container, self._exec_id, self._token = engine, container, exec_id, token

    async def wait(self) -> int:
        # The stream ends before the engine has noted the exit code.
        for pause in (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
            await asyncio.sleep(pause)
            state = await self._engine.call(lambda client: client.exec_inspect(self._exec_id))
            if not state["Running"]:
                return int(state["ExitCode"])
        raise DesktopLost("A program in the desktop closed its output but did not end.")

    async def kill(self, spare: Sequence[int] = ()) -> None:
        arguments = [f"{_TOKEN}={self._token}", " ".join(map(str, spare))]
        killer = await start_exec(self._engine, self._container, ["sh", "-c", _KILL, "kill", *arguments])
        try:
            # Not for its exit: Docker can report that seconds late while child processes survive.
            await killer.until(b"done")
        finally:
            killer.abandon()


async def start_exec(engine: Engine, container: str, argv: Sequence[str], *, user: str = USER) -> ExecProcess:
    """Start ``argv`` as ``user``. Raises :class:`~cambio_lab.errors.DesktopLost` when the container is gone."""
    token = secrets.token_hex(8)
    folder = HOME if user == USER else "/"
    options = {"stdin": True, "environment": {_TOKEN: token}, "workdir": folder, "user": user}
    try:
        created = await engine.call(methodcaller("exec_create", container, list(argv), **options))
        streams = await engine.hijack(f"/exec/{created['Id']}/start", {"Detach": False, "Tty": False})
    except EngineError as error:
        # The engine refuses to start a program in a paused container, which would hang them both.
        frozen = error.status == 409 and "paused" in str(error)
        state = "is frozen" if frozen else "is gone or does not answer"
        raise DesktopLost(f"The desktop's container {state}.") from error
    except OSError as error:
        raise DesktopLost("The Docker Engine does not answer.") from error
    return ExecProcess(streams, engine, container, created["Id"], token)


class ContainerMachine(Machine):
    """Programs in a container, by default as the desktop's own user."""

    def __init__(self, engine: Engine, container: str, user: str = USER) -> None:
        super().__init__(HOME, (HOME, "/tmp"), "python3")
        self._engine = engine
        self._container = container
        self._user = user

    async def spawn(self, argv: Sequence[str]) -> ExecProcess:
        await self.managed.wait()
        return await start_exec(self._engine, self._container, argv, user=self._user)
