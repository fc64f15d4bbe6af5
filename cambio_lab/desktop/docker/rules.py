"""Packet rules for the bridges of desktops: one nftables table that names only bridges whose names begin `cambio-`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from string import Template

from .allow import PRIVATE, PROXY_PORT
from .container import ROLE_LABEL, SERVER_LABEL, create, remove
from .engine import Engine, EngineError

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
        await remove(engine, name)
    text = output.decode("utf-8", "replace").strip()
    if result["StatusCode"] != 0 or "cambio-none" not in text:
        raise EngineError(text.splitlines()[-1] if text else "the rules were not accepted")
    if "neighbours stay visible" in text:
        log.info("this engine's kernel has no packet rules for bridges: ARP shows a desktop its neighbours")


def _template(name: str) -> Template:
    return Template(Path(__file__).with_name(name).read_text("ascii"))
