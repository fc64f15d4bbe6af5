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
from typing import Any

from cambio_lab.errors import DesktopUnavailable

from .allow import domains
from .container import ROLE_LABEL, SERVER_LABEL, create, remove
from .engine import Engine, EngineError, HijackedStream

log = logging.getLogger(__name__)

OPEN, CLOSED = "cambio-open", "cambio-none"
PROXY_PORT = 3128
_HELPER_TIMEOUT = 30.0
_TRY_AGAIN = 60.0
"""Seconds after which rules that could not be loaded are tried again."""

# Everything that is not the public internet (RFC 6890): private ranges, the metadata address, the engine's host.
_PRIVATE = (
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.168.0.0/16, "
    "198.18.0.0/15, 224.0.0.0/4, 240.0.0.0/4"
)

# Replaced as a whole, in one transaction: there is no moment without rules. A `drop` here is final, whatever the
# engine's own chains say; an `accept` only leaves the decision to them. Names are asked of the host's own resolvers.
_RULES = """
table inet cambio_lab
delete table inet cambio_lab
table inet cambio_lab {{
  set private {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {private} }} }}
  set resolvers {{ type ipv4_addr; elements = {{ {resolvers} }} }}
  chain forward {{
    type filter hook forward priority -5; policy accept;
    iifname "cambio-*" jump leaving
    oifname "cambio-*" ct state established,related accept
    oifname "cambio-*" drop
  }}
  chain leaving {{
    ct state established,related accept
    meta nfproto ipv6 drop
    iifname "{closed}" reject
    iifname "cambio-a*" oifname "cambio-a*" tcp dport {proxy} accept
    iifname "cambio-a*" reject
    ip daddr @resolvers udp dport 53 accept
    ip daddr @resolvers tcp dport 53 accept
    ip daddr @private reject
    oifname "cambio-*" reject
  }}
  chain input {{
    type filter hook input priority -5; policy accept;
    iifname "cambio-*" ct state established,related accept
    iifname "cambio-*" reject
  }}
}}
"""
# The resolvers are those of the engine's host, which the helper sees in its own resolv.conf.
_LOAD = (
    "r=$(sed -nE 's/^nameserver ([0-9]+\\.[0-9.]+).*/\\1/p' /etc/resolv.conf | paste -sd, -); "
    'printf "%s" "$RULES" | sed "s/RESOLVERS/${r:-192.0.2.1}/" | nft -f - && nft list chain inet cambio_lab leaving'
)

_SQUID = """
http_port {port}
pid_filename none
cache deny all
cache_mem 8 MB
access_log none
cache_log /dev/stderr
coredump_dir /tmp
shutdown_lifetime 0 seconds
visible_hostname proxy
via off
forwarded_for delete
acl allowed dstdomain -n
{domains}
acl web port 80 443 8000-8999
acl CONNECT method CONNECT
acl tls port 443
http_access deny !web
http_access deny CONNECT !tls
http_access allow allowed
http_access deny all
"""


def _squid(hosts: tuple[str, ...]) -> str:
    """A line for each name: squid cuts long ones."""
    return _SQUID.format(port=PROXY_PORT, domains="\n".join(f"acl allowed dstdomain -n {name}" for name in hosts))


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
        """Bridges and rules, once; cheap afterwards. Rules that were not loaded are tried again, not too often."""
        async with self._lock:
            if time.monotonic() < self._prepared_until:
                return
            for name in (OPEN, CLOSED):
                await self._bridge(name)
            try:
                async with asyncio.timeout(_HELPER_TIMEOUT):
                    await self._load_rules(image)
                self.problem = ""
            except (EngineError, TimeoutError) as error:
                self.problem = str(error)[:300] or "the helper container did not end"
                log.warning("network rules for desktops are NOT enforced: %s", self.problem)
            self._prepared_until = time.monotonic() + (_TRY_AGAIN if self.problem else math.inf)

    async def _bridge(self, name: str) -> None:
        """A bridge on which containers do not see each other. Two servers may ask at once: one of them is first."""
        options = {
            "com.docker.network.bridge.name": name,
            "com.docker.network.bridge.enable_icc": "false",
        }
        if await self._engine.call(lambda client: client.networks(names=[f"^{name}$"])):
            return
        try:
            await self._engine.call(
                lambda client: client.create_network(
                    name, driver="bridge", options=options, check_duplicate=True, labels={ROLE_LABEL: "network"}
                )
            )
        except EngineError as error:
            if error.status != 409:
                raise DesktopUnavailable(f"The desktops' network cannot be made: {error}") from error

    async def _load_rules(self, image: str) -> None:
        rules = _RULES.format(private=_PRIVATE, closed=CLOSED, proxy=PROXY_PORT, resolvers="RESOLVERS")
        name = await create(
            self._engine,
            lambda client: {
                "image": image,
                "command": ["sh", "-c", _LOAD],
                "user": "root",
                "environment": {"RULES": rules},
                "labels": {SERVER_LABEL: self._server_id, ROLE_LABEL: "rules"},
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
            await self._engine.finish(lambda client: client.start(name))
            result = await self._engine.call(lambda client: client.wait(name))
            output = await self._engine.call(lambda client: client.logs(name, stdout=True, stderr=True))
        finally:
            await remove(self._engine, name)
        text = output.decode("utf-8", "replace").strip()
        if result["StatusCode"] != 0 or "cambio-none" not in text:
            raise EngineError(text.splitlines()[-1] if text else "the rules were not accepted")

    async def place(self, image: str, network: str, allow_hosts: tuple[str, ...]) -> Placement:
        """What ``network`` means for one desktop. A closed one is refused when it cannot be enforced."""
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
            await self._engine.finish(
                lambda client: client.create_network(
                    inner,
                    driver="bridge",
                    internal=True,
                    labels=labels,
                    options={"com.docker.network.bridge.name": inner},
                )
            )
            placement.proxy = await self._start_proxy(image, inner, allow_hosts, labels)
            address = await self._address(placement.proxy, inner)
        except BaseException as error:
            await asyncio.shield(self.remove(placement))
            if isinstance(error, EngineError):
                raise DesktopUnavailable(f"The filtering proxy cannot be started: {error}") from error
            raise
        url = f"http://{address}:{PROXY_PORT}"
        placement.environment = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), url)
        placement.environment |= {"no_proxy": "localhost,127.0.0.1", "NO_PROXY": "localhost,127.0.0.1"}
        return placement

    async def _start_proxy(self, image: str, inner: str, allow_hosts: tuple[str, ...], labels: dict[str, str]) -> str:
        name = await create(
            self._engine,
            lambda client: {
                "image": image,
                "command": ["start-proxy"],
                "user": "1000:1000",
                "labels": labels,
                "stdin_open": True,
                "host_config": client.create_host_config(
                    init=True,
                    read_only=True,
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    network_mode=OPEN,
                    mem_limit=256 * 1024**2,
                    memswap_limit=256 * 1024**2,
                    cpu_shares=512,
                    pids_limit=64,
                    tmpfs={
                        "/run/desktop": "size=16m,uid=1000,gid=1000,mode=0700",
                        "/tmp": "size=16m,mode=1777",
                        "/dev/shm": "size=64m,mode=1777",
                    },
                    extra_hosts=self._extra_hosts,
                    log_config={"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
                ),
            },
        )
        stream: HijackedStream | None = None
        try:
            await self._engine.finish(
                lambda client: client.connect_container_to_network(name, inner, aliases=["proxy"])
            )
            stream = await self._engine.hijack(f"/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1", {})
            await self._engine.finish(lambda client: client.start(name))
            configuration = _squid(allow_hosts)
            stream.writer.write(configuration.encode())
            stream.writer.write_eof()
            said = b""
            async with asyncio.timeout(15):
                while b"Accepting HTTP" not in said:
                    piece = await stream.read()
                    if piece is None:
                        raise EngineError(said.decode("utf-8", "replace")[-300:] or "squid did not start")
                    said += piece[1]
        except BaseException as error:
            await asyncio.shield(remove(self._engine, name))
            if isinstance(error, TimeoutError):
                raise EngineError("squid did not listen in time") from error
            raise
        finally:
            if stream is not None:
                stream.close()
        return name

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
