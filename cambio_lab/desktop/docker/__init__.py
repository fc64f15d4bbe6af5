"""Containers of this server in a Docker Engine: created, removed, and those that an earlier process left reaped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from operator import methodcaller
from typing import Any, TypeVar

from cambio_lab.errors import DesktopUnavailable

from .engine import Engine, EngineError, HijackedStream

log = logging.getLogger(__name__)

SERVER_LABEL = "org.cambio-lab.server"
ROLE_LABEL = "org.cambio-lab.role"
_NOT_STARTED = "OCI runtime create failed"
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


async def started(make: Callable[[], Awaitable[T]]) -> T:
    """Await ``make()``, which makes and starts a container; once more when the engine's runtime could not start it.

    With Docker 20.10 and runc 1.1.5, 3 of 1,600 containers on a busy machine were started before their files were
    mounted: "stat /sbin/docker-init: permission denied". They differed in nothing from the others.
    """
    try:
        return await make()
    except (EngineError, DesktopUnavailable) as error:
        if _NOT_STARTED not in str(error):
            raise
        log.warning("a container was not started; another one is made: %s", error)
    return await make()


async def start_attached(engine: Engine, container: str) -> HijackedStream:
    """Start a created container; its standard streams.

    Attached to before, so that no output is lost; Podman refuses that, so there the program must wait for input first.
    """
    late = bool(await engine.podman())
    path = f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    stream = None if late else await engine.hijack(path, {})
    try:
        await engine.finish(lambda client: client.start(container))
    except BaseException:
        if stream is not None:
            stream.close()
        raise
    return stream or await engine.hijack(path, {})


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


async def reap(engine: Engine, server_id: str, keep: frozenset[str]) -> list[str]:
    """Remove containers and networks with this server's label, except ``keep`` and what serves them.

    Returns the ids of the removed containers.
    """
    ours = {"label": f"{SERVER_LABEL}={server_id}"}
    containers = await engine.call(lambda client: client.containers(all=True, filters=ours))
    kept_networks = {name for item in containers if item["Id"] in keep for name in _networks(item)}
    gone: list[str] = [item["Id"] for item in containers if item["Id"] not in keep and not _serves(item, kept_networks)]
    await asyncio.gather(*(remove(engine, name) for name in gone))
    for network in await engine.call(lambda client: client.networks(filters=ours)):
        if network["Name"] not in kept_networks:
            try:
                await engine.call(methodcaller("remove_network", network["Name"]))
            except EngineError as error:
                log.warning("a network of an earlier run could not be removed: %s", error)
    return gone


def _networks(item: dict[str, Any]) -> list[str]:
    return list(item["NetworkSettings"]["Networks"])


def _serves(item: dict[str, Any], kept_networks: set[str]) -> bool:
    """Whether a proxy stands on the inner network of a desktop that stays."""
    inner = [name for name in _networks(item) if name.startswith("cambio-a") and name in kept_networks]
    return item["Labels"].get(ROLE_LABEL) == "proxy" and bool(inner)
