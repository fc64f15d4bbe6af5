"""What a desktop may reach: bridges of our own, packet rules for them, and a proxy for allow-lists.

Containers sit on bridges whose names begin with ``cambio-``. Once per server start, a container that lives for a
moment in the engine host's network (and holds no capability but NET_ADMIN) loads one nftables table that concerns only
these bridges; it needs no rights on the machine this server runs on. Where that fails, a closed network is refused and
an open one is given with a warning, and ``/health`` says so.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from operator import methodcaller
from typing import Any

from cambio_lab.errors import DesktopUnavailable

from . import ROLE_LABEL, SERVER_LABEL, remove, started
from .engine import Engine, EngineError
from .filter import CLOSED, OPEN, domains, load_rules, proxy_environment, start_proxy

log = logging.getLogger(__name__)

_HELPER_TIMEOUT = 30.0
_TRY_AGAIN = 60.0
"""Seconds after which rules that could not be loaded are loaded again."""
_SMALL, _SMALL_PREFIX = ip_network("198.18.0.0/15"), 29
"""Networks of one desktop and its proxy lie here (RFC 2544: never routed): the engine's own pool holds about thirty."""
_NETWORK_ATTEMPTS = 5


@dataclass
class Placement:
    """Where a desktop goes: the network it is created on, its variables, and what exists for it alone."""

    network: str
    environment: dict[str, str] = field(default_factory=dict)
    offline_names: bool = False
    inner: str | None = None
    proxy: str | None = None


class Networks:
    """Bridges and rules of one engine. ``extra_hosts`` are names that allow-list proxies know besides DNS."""

    def __init__(self, engine: Engine, server_id: str, extra_hosts: dict[str, str] | None = None) -> None:
        self._engine = engine
        self._server_id = server_id
        self._extra_hosts = extra_hosts or {}
        self._lock = asyncio.Lock()
        self._prepared_until = 0.0
        self.problem = ""
        """Why the rules cannot be enforced, or empty."""

    async def prepare(self, image: str) -> None:
        """Make bridges and rules, once; cheap afterwards. Loading rules is retried when it failed, not too often."""
        async with self._lock:
            if time.monotonic() < self._prepared_until:
                return
            subnets = [subnet for name in (OPEN, CLOSED) for subnet in await self._bridge(name)]
            try:
                async with asyncio.timeout(_HELPER_TIMEOUT):
                    await started(partial(load_rules, self._engine, self._server_id, image, subnets))
                self.problem = ""
            except (EngineError, TimeoutError) as error:
                self.problem = str(error)[:300] or "the helper container did not end"
                log.warning("network rules for desktops are NOT enforced: %s", self.problem)
            self._prepared_until = time.monotonic() + (_TRY_AGAIN if self.problem else math.inf)

    async def _bridge(self, name: str) -> list[str]:
        """Make a bridge on which containers do not see each other; its subnets. Two servers may ask at once."""
        options = {
            "com.docker.network.bridge.name": name,
            "com.docker.network.bridge.enable_icc": "false",
        }
        if not (found := await self._engine.call(lambda client: client.networks(names=[f"^{name}$"]))):
            try:
                await self._engine.call(
                    lambda client: client.create_network(
                        name, driver="bridge", options=options, check_duplicate=True, labels={ROLE_LABEL: "network"}
                    )
                )
            except EngineError as error:
                if error.status != 409:
                    raise DesktopUnavailable(f"The desktops' network cannot be made: {error}") from error
            found = await self._engine.call(lambda client: client.networks(names=[f"^{name}$"]))
        return [config["Subnet"] for network in found for config in network["IPAM"]["Config"] or ()]

    async def place(self, image: str, network: str, allow_hosts: tuple[str, ...]) -> Placement:
        """Prepare ``network`` for one desktop. A closed one is refused when it cannot be enforced."""
        await self.prepare(image)
        if network == "open":
            return Placement(OPEN)
        if self.problem:
            raise DesktopUnavailable(
                f"This engine cannot enforce network {network!r}: {self.problem}.", hint="Use network: open."
            )
        if network == "none":
            return Placement(CLOSED, offline_names=True)
        try:
            hosts = domains(allow_hosts)
        except ValueError as error:
            raise DesktopUnavailable(f"The allow list is not valid: {error}.") from error
        return await self._proxied(image, hosts)

    async def _proxied(self, image: str, allow_hosts: tuple[str, ...]) -> Placement:
        inner = f"cambio-a{secrets.token_hex(3)}"  # names of interfaces end at 15 characters
        labels = {SERVER_LABEL: self._server_id, ROLE_LABEL: "proxy"}
        placement = Placement(CLOSED, offline_names=True, inner=inner)
        try:
            await self._create_small(inner, labels)
            placement.proxy = await start_proxy(
                self._engine, image, inner, allow_hosts, labels=labels, extra_hosts=self._extra_hosts
            )
            address = await self._address(placement.proxy, inner)
        except BaseException as error:
            await asyncio.shield(self.remove(placement))
            if isinstance(error, EngineError):
                raise DesktopUnavailable(
                    f"The filtering proxy cannot be started: {error}",
                    hint="`docker network prune` removes networks that nothing uses.",
                ) from error
            raise
        placement.environment = proxy_environment(address)
        return placement

    async def _create_small(self, name: str, labels: dict[str, str]) -> None:
        """Make an internal network with room for a gateway, a proxy and a desktop."""
        for attempt in range(1, _NETWORK_ATTEMPTS + 1):
            first = int(_SMALL.network_address) + 8 * secrets.randbelow(_SMALL.num_addresses // 8)
            subnet = f"{ip_address(first)}/{_SMALL_PREFIX}"
            options = {"com.docker.network.bridge.name": name}
            arguments = {"driver": "bridge", "internal": True, "labels": labels, "options": options}
            arguments["ipam"] = {"Driver": "default", "Config": [{"Subnet": subnet}]}
            try:
                await self._engine.finish(methodcaller("create_network", name, **arguments))
                return
            except EngineError as error:
                if "overlap" not in str(error) or attempt == _NETWORK_ATTEMPTS:
                    raise

    async def _address(self, container: str, network: str) -> str:
        state = await self._engine.call(lambda client: client.inspect_container(container))
        address: str = state["NetworkSettings"]["Networks"][network]["IPAddress"]
        return address

    async def recall(self, state: dict[str, Any]) -> Placement:
        """The placement of a running desktop, from what the engine says about it."""
        names = list(state["NetworkSettings"]["Networks"])
        inner = next((name for name in names if name.startswith("cambio-a")), None)
        if inner is None:
            return Placement(names[0])
        network = await self._engine.call(lambda client: client.inspect_network(inner))
        others = [name for name in network["Containers"] if name != state["Id"]]
        return Placement(CLOSED, offline_names=True, inner=inner, proxy=others[0] if others else None)

    async def join(self, placement: Placement, container: str) -> None:
        """Connect a created (not yet started) desktop to what its placement adds."""
        if placement.inner is not None:
            await self._engine.finish(
                lambda client: client.connect_container_to_network(container, placement.inner, aliases=["desktop"])
            )

    async def remove(self, placement: Placement) -> None:
        """Remove what exists for one desktop alone; after the desktop itself."""
        if placement.proxy is not None:
            await remove(self._engine, placement.proxy)
        if placement.inner is not None:
            try:
                await self._engine.call(lambda client: client.remove_network(placement.inner))
            except EngineError as error:
                log.warning("a network could not be removed: %s", error)
