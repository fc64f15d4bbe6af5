"""Packet rules for the bridges of desktops: one nftables table that names only bridges whose names begin `cambio-`."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .container import ROLE_LABEL, SERVER_LABEL, create, remove
from .engine import Engine, EngineError

OPEN, CLOSED = "cambio-open", "cambio-none"
PROXY_PORT = 3128
log = logging.getLogger(__name__)

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

# Frames between two ports of a bridge: without this, ARP shows which neighbours there are. It is a table of its own
# because a kernel without it can enforce the rest.
_BRIDGE_RULES = """
table bridge cambio_lab
delete table bridge cambio_lab
table bridge cambio_lab {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    arp saddr ip {{ {subnets} }} drop
    ip saddr {{ {subnets} }} ip daddr {{ {subnets} }} drop
  }}
}}
"""
# The resolvers are those of the engine's host, which the helper sees in its own resolv.conf.
_LOAD = (
    "r=$(sed -nE 's/^nameserver ([0-9]+\\.[0-9.]+).*/\\1/p' /etc/resolv.conf | paste -sd, -); "
    'printf "%s" "$RULES" | sed "s/RESOLVERS/${r:-192.0.2.1}/" | nft -f - || exit 1; '
    'printf "%s" "$BRIDGE_RULES" | nft -f - || echo "neighbours stay visible"; nft list chain inet cambio_lab leaving'
)


async def load_rules(engine: Engine, server_id: str, image: str, subnets: Sequence[str]) -> None:
    """Load the rules in a short-lived container of ``image``. :class:`EngineError` when they are refused."""
    bridge = _BRIDGE_RULES.format(subnets=", ".join(subnet for subnet in subnets if ":" not in subnet))
    rules = _RULES.format(private=_PRIVATE, closed=CLOSED, proxy=PROXY_PORT, resolvers="RESOLVERS")
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
        await remove(engine, name)
    text = output.decode("utf-8", "replace").strip()
    if result["StatusCode"] != 0 or "cambio-none" not in text:
        raise EngineError(text.splitlines()[-1] if text else "the rules were not accepted")
    if "neighbours stay visible" in text:
        log.info("this engine's kernel has no packet rules for bridges: ARP shows a desktop its neighbours")
