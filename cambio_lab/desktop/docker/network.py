"""What a desktop may reach: bridges of our own, packet rules for them, and a proxy for allow-lists.

Containers sit on bridges whose names begin with ``cambio-``. Once per server start, a container that lives for a
moment in the engine host's network (and holds no capability but NET_ADMIN) loads one nftables table that concerns only
these bridges; it needs no rights on the machine this server runs on. Where that fails, a closed network is refused and
an open one is given with a warning, and ``/health`` says so. A limited network is a squid in a container of the
desktop's own image.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from operator import methodcaller
from pathlib import Path
from string import Template
from typing import Any

from cambio_lab.errors import DesktopUnavailable

from .containers import (
    ROLE_LABEL,
    SEALED,
    SERVER_LABEL,
    create,
    memory_folder,
    remove,
    remove_network,
    start_attached,
    started,
)
from .engine import Engine, EngineError, finished

log = logging.getLogger(__name__)

PROXY_PORT = 3128
PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
)
"""Everything that is not the public internet (RFC 6890): private ranges, the metadata address, multicast."""


def proxy_environment(address: str) -> dict[str, str]:
    """Return the variables by which programs find the filtering proxy at ``address``."""
    proxy = f"http://{address}:{PROXY_PORT}"
    variables = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
    return variables | dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1")


OPEN, CLOSED = "cambio-open", "cambio-none"
# The resolvers are those of the engine's host, which the helper sees in its own resolv.conf.
_LOAD = (
    "r=$(sed -nE 's/^nameserver ([0-9]+\\.[0-9.]+).*/\\1/p' /etc/resolv.conf | paste -sd, -); "
    'printf "%s" "$RULES" | sed "s/RESOLVERS/${r:-192.0.2.1}/" | nft -f - || exit 1; '
    'printf "%s" "$BRIDGE_RULES" | nft -f - || echo "neighbours stay visible"; nft list chain inet cambio_lab leaving'
)


async def load_rules(engine: Engine, server_id: str, image: str, subnets: Sequence[str]) -> None:
    """Load the rules in a short-lived container of ``image``. :class:`EngineError` when they are refused."""
    bridge = _filled("bridge.nft", subnets=", ".join(subnet for subnet in subnets if ":" not in subnet))
    private = ", ".join(PRIVATE)
    rules = _filled("rules.nft", private=private, closed=CLOSED, proxy=PROXY_PORT, resolvers="RESOLVERS")
    name = await create(
        engine,
        lambda client: {
            "image": image,
            "command": ["sh", "-c", _LOAD],
            "user": "root",
            "environment": {"RULES": rules, "BRIDGE_RULES": bridge},
            "labels": {SERVER_LABEL: server_id, ROLE_LABEL: "rules"},
            "host_config": client.create_host_config(
                network_mode="host",
                cap_drop=["ALL"],
                cap_add=["NET_ADMIN"],
                security_opt=["no-new-privileges"],
                read_only=True,
            ),
        },
    )
    try:
        await engine.finish(lambda client: client.start(name))
        result = await engine.call(lambda client: client.wait(name))
        output = await engine.call(lambda client: client.logs(name, stdout=True, stderr=True))
    finally:
        await finished(remove(engine, name))
    text = output.decode("utf-8", "replace").strip()
    if result["StatusCode"] != 0 or "cambio-none" not in text:
        raise EngineError(text.splitlines()[-1] if text else "the rules were not accepted")
    if "neighbours stay visible" in text:
        log.info("this engine's kernel has no packet rules for bridges: ARP shows a desktop its neighbours")


def _filled(name: str, **values: object) -> str:
    return Template(Path(__file__).with_name(name).read_text("ascii")).substitute(values)


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
        arguments = {"driver": "bridge", "options": options, "labels": {ROLE_LABEL: "network"}, "check_duplicate": True}
        find = methodcaller("networks", names=[f"^{name}$"])
        if not (found := await self._engine.call(find)):
            try:
                await self._engine.call(methodcaller("create_network", name, **arguments))
            except EngineError as error:
                if error.status != 409:
                    raise DesktopUnavailable(f"The desktops' network cannot be made: {error}") from error
            found = await self._engine.call(find)
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
            return Placement(CLOSED)
        return await self._proxied(image, allow_hosts)

    async def _proxied(self, image: str, allow_hosts: tuple[str, ...]) -> Placement:
        inner = f"cambio-a{secrets.token_hex(3)}"  # names of interfaces end at 15 characters
        labels = {SERVER_LABEL: self._server_id, ROLE_LABEL: "proxy"}
        placement = Placement(CLOSED, inner=inner)
        try:
            await self._create_small(inner, labels)
            placement.proxy = proxy = await self._create_proxy(image, labels)
            await self._serve(proxy, inner, allow_hosts)
            state = await self._engine.call(lambda client: client.inspect_container(proxy))
            address = state["NetworkSettings"]["Networks"][inner]["IPAddress"]
        except BaseException as error:
            await asyncio.shield(self.remove(placement))
            if isinstance(error, EngineError | TimeoutError):
                raise DesktopUnavailable(
                    f"The filtering proxy cannot be started: {error or 'squid did not listen in time'}",
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

    async def _create_proxy(self, image: str, labels: dict[str, str]) -> str:
        folders = {
            "/run/desktop": memory_folder(await self._engine.podman(), "16m", 1000),
            "/tmp": "size=16m,mode=1777",
            "/dev/shm": "size=64m,mode=1777",
        }
        limits = {"mem_limit": 256 * 1024**2, "memswap_limit": 256 * 1024**2, "pids_limit": 64}
        return await create(
            self._engine,
            lambda client: {
                "image": image,
                "command": ["start-proxy"],
                "user": "1000:1000",
                "labels": labels,
                "stdin_open": True,
                "host_config": client.create_host_config(
                    **SEALED, **limits, tmpfs=folders, network_mode=OPEN, extra_hosts=self._extra_hosts
                ),
            },
        )

    async def _serve(self, proxy: str, network: str, hosts: tuple[str, ...]) -> None:
        """Connect the proxy to ``network``, start it, and wait until it listens."""
        await self._engine.finish(methodcaller("connect_container_to_network", proxy, network, aliases=["proxy"]))
        stream = await start_attached(self._engine, proxy)
        # A line for each name: squid cuts long ones.
        domains = "\n".join(f"acl allowed dstdomain -n {name}" for name in hosts)
        try:
            stream.writer.write(_filled("squid.conf", port=PROXY_PORT, domains=domains).encode())
            stream.writer.write_eof()
            async with asyncio.timeout(15):
                if not await stream.until(b"Accepting HTTP"):
                    raise EngineError(stream.said.decode("utf-8", "replace")[-300:] or "squid did not start")
        finally:
            stream.abandon()

    async def recall(self, state: dict[str, Any]) -> Placement:
        """The placement of a running desktop, from what the engine says about it."""
        names = list(state["NetworkSettings"]["Networks"])
        inner = next((name for name in names if name.startswith("cambio-a")), None)
        if inner is None:
            return Placement(names[0])
        network = await self._engine.call(lambda client: client.inspect_network(inner))
        others = [name for name in network["Containers"] if name != state["Id"]]
        return Placement(CLOSED, inner=inner, proxy=others[0] if others else None)

    async def remove(self, placement: Placement) -> None:
        """Remove what exists for one desktop alone; after the desktop itself."""
        if placement.proxy is not None:
            await remove(self._engine, placement.proxy)
        if placement.inner is not None:
            await remove_network(self._engine, placement.inner)
