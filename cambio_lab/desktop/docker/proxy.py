"""The proxy of an allow-list desktop: squid, in a container of the desktop's own image."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from string import Template

from .allow import PROXY_PORT
from .container import create, memory_folder, remove, start_attached
from .engine import Engine, EngineError, HijackedStream


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
    outside: str,
    labels: Mapping[str, str],
    extra_hosts: Mapping[str, str],
) -> str:
    """Start a proxy between ``network`` and the bridge ``outside``; its container. :class:`EngineError` if it fails."""
    podman = await engine.podman()
    name = await create(
        engine,
        lambda client: {
            "image": image,
            "command": ["start-proxy"],
            "user": "1000:1000",
            "labels": dict(labels),
            "stdin_open": True,
            "host_config": client.create_host_config(
                init=True,
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                network_mode=outside,
                mem_limit=256 * 1024**2,
                memswap_limit=256 * 1024**2,
                cpu_shares=512,
                pids_limit=64,
                tmpfs={
                    "/run/desktop": memory_folder(podman, "16m", 1000),
                    "/tmp": "size=16m,mode=1777",
                    "/dev/shm": "size=64m,mode=1777",
                },
                extra_hosts=dict(extra_hosts),
                log_config={"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
            ),
        },
    )
    stream: HijackedStream | None = None
    try:
        await engine.finish(lambda client: client.connect_container_to_network(name, network, aliases=["proxy"]))
        stream = await start_attached(engine, name)
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
        await asyncio.shield(remove(engine, name))
        if isinstance(error, TimeoutError):
            raise EngineError("squid did not listen in time") from error
        raise
    finally:
        if stream is not None:
            stream.close()
    return name
