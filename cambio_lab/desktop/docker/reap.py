"""What earlier lives of this server left on the engine."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from .container import ROLE_LABEL, SERVER_LABEL, remove
from .engine import Engine, EngineError

log = logging.getLogger(__name__)


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
                await engine.call(partial(_remove_network, network["Name"]))
            except EngineError as error:
                log.warning("a network of an earlier run could not be removed: %s", error)
    return gone


def _remove_network(name: str, client: Any) -> None:
    client.remove_network(name)


def _networks(item: dict[str, Any]) -> list[str]:
    return list(item["NetworkSettings"]["Networks"])


def _serves(item: dict[str, Any], kept_networks: set[str]) -> bool:
    """Whether a proxy stands on the inner network of a desktop that stays."""
    inner = [name for name in _networks(item) if name.startswith("cambio-a") and name in kept_networks]
    return item["Labels"].get(ROLE_LABEL) == "proxy" and bool(inner)
