"""What a sandbox reaches: nothing, the internet through slirp4netns, or what a filtering proxy lets through.

A sandbox has a network of its own with nothing in it but loopback. ``open`` adds a user-mode link (slirp4netns) whose
packets pass rules that process 1 sets before it gives its powers up: no private range, no metadata address, none of
this machine's own addresses. Where that cannot be had (no slirp4netns, no nft, no /dev/net/tun), ``open`` means the web
through a proxy with the same limits; ``allow`` always means the proxy.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cambio_lab.errors import DesktopUnavailable

from ..docker.network import PRIVATE, PROXY_PORT, proxy_environment
from ..provider import DesktopOptions
from . import Child

_RESOLVER = "10.0.2.3"
"""slirp4netns passes what is sent there to this machine's resolver: on any port, so the rules open only that of DNS."""
_TUN = "/dev/net/tun"
_READY_SECONDS = 5.0
_RULES = """
table inet cambio_lab {{
  set private {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {private} }}; }}
  chain output {{
    type filter hook output priority 0; policy accept;
    oifname "lo" accept
    meta nfproto ipv6 reject
    ip daddr {resolver} udp dport 53 accept
    ip daddr {resolver} tcp dport 53 accept
    ip daddr @private reject
  }}
}}
"""


@cache
def missing_for_link(root: Path) -> str:
    """What keeps sandboxes from user-mode networking here, in words; empty when nothing does. nft runs on ``root``."""
    if shutil.which("slirp4netns") is None:
        return "slirp4netns is not installed"
    if not (root / "usr/sbin/nft").exists():
        return "nft (package nftables) is not installed"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"{_TUN} cannot be opened"
    return ""


@dataclass(frozen=True)
class Link:
    """What a sandbox is told of its network, and the helper outside that it needs."""

    kind: str
    rules: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    resolver: str = ""
    proxy_port: int = 0
    configuration: dict[str, Any] = field(default_factory=dict)


def plan_link(options: DesktopOptions, names: dict[str, str], root: Path) -> Link:
    """Decide how a desktop's network mode is provided; ``names`` are known to proxies besides DNS."""
    if options.network == "none":
        return Link("none")
    if options.network == "open" and not missing_for_link(root):
        private = ", ".join((*PRIVATE, *own_addresses()))
        return Link("slirp4netns", _RULES.format(private=private, resolver=_RESOLVER), resolver=_RESOLVER)
    allow = None if options.network == "open" else options.allow_hosts
    configuration = {"allow": allow, "names": names, "private": PRIVATE}
    return Link("proxy", "", proxy_environment("127.0.0.1"), "", PROXY_PORT, configuration)


def own_addresses() -> list[str]:
    """Every IPv4 address of this machine: a server that listens on 0.0.0.0 answers on each."""
    with suppress(OSError):
        table = Path("/proc/net/fib_trie").read_text()
        return sorted(set(re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", table)))
    return []


async def start_helper(link: Link, lifeline: socket.socket, user: int | None) -> Child | None:
    """Start what the network needs outside the sandbox; it ends when ``lifeline`` does.

    Raises :class:`~cambio_lab.errors.DesktopUnavailable` when it does not become ready.
    """
    if link.kind == "none":
        return None
    if link.kind == "slirp4netns":
        return await _start_slirp(lifeline, user)
    source = await asyncio.to_thread(Path(__file__).with_name("proxy.py").read_bytes)
    loader = f"import sys; exec(sys.stdin.buffer.read({len(source)}))"
    argv = ["/usr/bin/python3", "-I", "-S", "-c", loader, str(lifeline.fileno())]
    return await Child.start(argv, [lifeline.fileno()], user, source + json.dumps(link.configuration).encode())


async def _start_slirp(lifeline: socket.socket, user: int | None) -> Child:
    spaces = await _descriptors(lifeline, 2)
    ready_read, ready_write = os.pipe()
    argv = [
        *("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-sandbox"),
        *("--enable-seccomp", f"--userns-path=/proc/self/fd/{spaces[0]}", "--netns-type=path"),
        *(f"--ready-fd={ready_write}", f"--exit-fd={lifeline.fileno()}", f"/proc/self/fd/{spaces[1]}", "tap0"),
    ]
    if user is not None and not _anyone_may_open_tun():
        user = None  # then only this server's own user, root, may open it
    try:
        child = await Child.start(argv, [*spaces, ready_write, lifeline.fileno()], user)
        os.close(ready_write)
        ready_write = -1
        if not await _readable(ready_read) or not os.read(ready_read, 1):
            raise DesktopUnavailable("slirp4netns did not connect the sandbox.", hint="Use network: none.")
        return child
    finally:
        for fd in (*spaces, ready_read, ready_write):
            if fd >= 0:
                os.close(fd)


def _anyone_may_open_tun() -> bool:
    return Path(_TUN).stat().st_mode & 0o006 == 0o006


async def _descriptors(sock: socket.socket, count: int) -> list[int]:
    if not await _readable(sock.fileno()):
        raise DesktopUnavailable("The sandbox did not say which network it has.")
    _, fds, _, _ = socket.recv_fds(sock, 1, count)
    if len(fds) != count:
        raise DesktopUnavailable("The sandbox ended before it had a network.")
    return fds


async def _readable(fd: int) -> bool:
    """Whether something, or the end, arrives in time."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(fd, arrived.set)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await arrived.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)
    return True
