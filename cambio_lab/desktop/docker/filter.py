"""What a desktop with a limited network may reach: names that are allowed, packet rules, and a filtering proxy.

One nftables table names only bridges whose names begin `cambio-`; squid runs in a container of the desktop's own image.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from . import ROLE_LABEL, SEALED, SERVER_LABEL, create, memory_folder, remove, start_attached
from .engine import Engine, EngineError, finished

PROXY_PORT = 3128
PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
)
"""Everything that is not the public internet (RFC 6890): private ranges, the metadata address, multicast."""
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST = 253


def domain(host: object) -> str:
    """``Example.org`` as ``example.org``, ``*.example.org`` as ``.example.org``. ``ValueError`` says what is wrong."""
    if not isinstance(host, str):
        raise ValueError(f"{host!r} is not text")
    if not host.isascii():
        raise ValueError(f"{host!r} is not ASCII: write the name as xn--...")
    if "/" in host:
        raise ValueError(f"{host!r} is an address, not a host name: leave out the scheme and the path")
    if ":" in host:
        raise ValueError(f"{host!r} has a port or is an IPv6 address: name the host alone")
    name = host.lower().removesuffix(".")
    below = name.startswith((".", "*."))
    name = name.removeprefix("*").removeprefix(".") if below else name
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise ValueError(f"{host!r} is not a host name such as example.org, or .example.org with all below it")
    return f".{name}" if below else name


def domains(hosts: Iterable[object]) -> tuple[str, ...]:
    """Each name once, without those that an entry with a leading dot covers: squid does not start with both."""
    found = tuple(dict.fromkeys(map(domain, hosts)))
    wide = {name for name in found if name.startswith(".")}
    return tuple(name for name in found if not any(above in wide for above in _above(name)))


def _above(name: str) -> list[str]:
    """The entries with a leading dot that cover ``name``, other than itself."""
    labels = name.removeprefix(".").split(".")
    first = 1 if name.startswith(".") else 0
    return ["." + ".".join(labels[start:]) for start in range(first, len(labels))]


def proxy_environment(address: str) -> dict[str, str]:
    """Return the variables by which programs find the filtering proxy at ``address``."""
    variables = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), f"http://{address}:{PROXY_PORT}"
    )
    return variables | dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1")


OPEN, CLOSED = "cambio-open", "cambio-none"
log = logging.getLogger(__name__)

# The resolvers are those of the engine's host, which the helper sees in its own resolv.conf.
_LOAD = (
    "r=$(sed -nE 's/^nameserver ([0-9]+\\.[0-9.]+).*/\\1/p' /etc/resolv.conf | paste -sd, -); "
    'printf "%s" "$RULES" | sed "s/RESOLVERS/${r:-192.0.2.1}/" | nft -f - || exit 1; '
    'printf "%s" "$BRIDGE_RULES" | nft -f - || echo "neighbours stay visible"; nft list chain inet cambio_lab leaving'
)


async def load_rules(engine: Engine, server_id: str, image: str, subnets: Sequence[str]) -> None:
    """Load the rules in a short-lived container of ``image``. :class:`EngineError` when they are refused."""
    bridge = _template("bridge.nft").substitute(subnets=", ".join(subnet for subnet in subnets if ":" not in subnet))
    rules = _template("rules.nft").substitute(
        private=", ".join(PRIVATE), closed=CLOSED, proxy=PROXY_PORT, resolvers="RESOLVERS"
    )
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


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text("ascii"))


def _squid(hosts: tuple[str, ...]) -> str:
    """A line for each name: squid cuts long ones."""
    template = Template(Path(__file__).with_name("squid.conf").read_text("ascii"))
    return template.substitute(port=PROXY_PORT, domains="\n".join(f"acl allowed dstdomain -n {name}" for name in hosts))


async def start_proxy(
    engine: Engine,
    image: str,
    network: str,
    allow_hosts: tuple[str, ...],
    *,
    labels: Mapping[str, str],
    extra_hosts: Mapping[str, str],
) -> str:
    """Start a proxy between ``network`` and the open bridge; its container. :class:`EngineError` if it fails."""
    folders = {
        "/run/desktop": memory_folder(await engine.podman(), "16m", 1000),
        "/tmp": "size=16m,mode=1777",
        "/dev/shm": "size=64m,mode=1777",
    }
    limits = {"mem_limit": 256 * 1024**2, "memswap_limit": 256 * 1024**2, "pids_limit": 64}
    name = await create(
        engine,
        lambda client: {
            "image": image,
            "command": ["start-proxy"],
            "user": "1000:1000",
            "labels": dict(labels),
            "stdin_open": True,
            "host_config": client.create_host_config(
                **SEALED, **limits, tmpfs=folders, network_mode=OPEN, extra_hosts=dict(extra_hosts)
            ),
        },
    )
    try:
        await _serve(engine, name, network, allow_hosts)
    except BaseException as error:
        await asyncio.shield(remove(engine, name))
        if isinstance(error, TimeoutError):
            raise EngineError("squid did not listen in time") from error
        raise
    return name


async def _serve(engine: Engine, name: str, network: str, allow_hosts: tuple[str, ...]) -> None:
    """Connect the proxy to ``network``, start it, and wait until it listens."""
    await engine.finish(lambda client: client.connect_container_to_network(name, network, aliases=["proxy"]))
    stream = await start_attached(engine, name)
    said = b""
    try:
        stream.writer.write(_squid(allow_hosts).encode())
        stream.writer.write_eof()
        async with asyncio.timeout(15):
            while b"Accepting HTTP" not in said:
                if (piece := await stream.read()) is None:
                    raise EngineError(said.decode("utf-8", "replace")[-300:] or "squid did not start")
                said += piece[1]
    finally:
        stream.close()
