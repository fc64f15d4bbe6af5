"""What a desktop with a limited network may reach: names in the form that squid's ``dstdomain`` takes."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
