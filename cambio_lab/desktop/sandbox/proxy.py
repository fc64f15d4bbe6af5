"""The filtering proxy of one sandbox: HTTP and CONNECT, by name, to public IPv4 addresses only.

``python3 -I -S -c LOADER LIFELINE`` outside the sandbox, as the sandbox's own user, with the standard library alone.
Standard input is this source, then the configuration. ``LIFELINE`` is a Unix socket on which process 1 of the sandbox
passes a listening socket of the sandbox's own network, so that nothing has to be relayed, and whose end ends the proxy.
Names are resolved here, the address is checked, and that same address is connected to: a name cannot lead elsewhere a
moment later.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import sys
from contextlib import suppress
from typing import Any

_HEAD_LIMIT = 64 * 1024
_HEAD_SECONDS, _CONNECT_SECONDS, _IDLE_SECONDS = 30.0, 15.0, 900.0
_CONNECTIONS = 256
_ADDRESSES = 4
_REASONS = {400: "Bad Request", 403: "Forbidden", 431: "Header Too Large", 503: "Service Unavailable"}


class Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Proxy:
    """``allow`` is a list of names (``.example.org``: and all below it), or ``None`` for the whole internet."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._allow: list[str] | None = config["allow"]
        self._names: dict[str, str] = config["names"]
        self._private = [ipaddress.ip_network(text) for text in config["private"]]
        self._room = asyncio.Semaphore(_CONNECTIONS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a program in the sandbox."""
        try:
            async with self._room:
                await self._serve(reader, writer)
        except Refused as refusal:
            body = f"{refusal}\n".encode()
            head = (
                f"HTTP/1.1 {refusal.status} {_REASONS[refusal.status]}\r\nContent-Type: text/plain\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            writer.write(head.encode() + body)
            with suppress(OSError):
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # one side went away: so does the other
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
        except asyncio.LimitOverrunError:
            raise Refused(431, "The request's head is too large.") from None
        method, host, port, request = _parse(head)
        self._check_name(host, port, tunnel=method == "CONNECT")
        upstream_reader, upstream_writer = await self._connect(host, port)
        try:
            if request:
                upstream_writer.write(request)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _join((reader, upstream_writer), (upstream_reader, writer))
        finally:
            upstream_writer.close()

    def _check_name(self, host: str, port: int, *, tunnel: bool) -> None:
        if self._allow is None:
            return
        if not any(host == name.lstrip(".") or (name[0] == "." and host.endswith(name)) for name in self._allow):
            raise Refused(403, f"{host} is not on this desktop's allow list.")
        if (tunnel and port != 443) or not (port in (80, 443) or 8000 <= port <= 8999):
            raise Refused(403, f"Port {port} is not open to this desktop.")

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        try:
            name = self._names.get(host, host)
            found = await loop.getaddrinfo(name, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise Refused(503, f"The name {host} is not known.") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        public = [address for address in addresses if not self._is_private(address)]
        if not public:
            status = 403 if host in addresses else 503
            raise Refused(status, f"{host} is not an address of the public internet.")
        for address in public[:_ADDRESSES]:
            with suppress(OSError, TimeoutError, asyncio.TimeoutError):
                opening = asyncio.open_connection(address, port)
                return await asyncio.wait_for(opening, _CONNECT_SECONDS)
        raise Refused(503, f"{host} does not answer.")

    def _is_private(self, address: str) -> bool:
        """Whether an address is in a private range or is one of this machine's own."""
        if any(ipaddress.ip_address(address) in network for network in self._private):
            return True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0))  # possible for own addresses only
            except OSError:
                return False
            return True


def _parse(head: bytes) -> tuple[str, str, int, bytes]:
    """Method, host, port, and the request to send on; that is empty for a tunnel."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3:
        raise Refused(400, "That is not an HTTP request.")
    method, target, version = words
    path = ""
    if method != "CONNECT":
        if not target.lower().startswith("http://"):
            raise Refused(400, "Only http:// addresses and CONNECT are served here.")
        authority, slash, rest = target[7:].partition("/")
        authority, question, query = authority.partition("?")
        path = "/" + rest if slash else "/" + question + query
        target = authority
    host, colon, number = target.rpartition("@")[2].partition(":")
    if not host or (colon and not (number.isascii() and number.isdigit() and 0 < int(number) < 65536)):
        raise Refused(400, "The address is not valid; IPv6 addresses are not served.")
    host = host.lower().rstrip(".")
    if method == "CONNECT":
        return method, host, int(number or 443), b""
    skipped = ("host:", "connection:", "proxy-", "keep-alive:")
    headers = [line for line in lines[1:] if line and not line.lower().startswith(skipped)]
    port = int(number or 80)
    named = host if port == 80 else f"{host}:{port}"
    request = [f"{method} {path} {version}", f"Host: {named}", *headers, "Connection: close"]
    return method, host, port, ("\r\n".join(request) + "\r\n\r\n").encode("latin-1")


async def _join(*ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Copy both ways until both have ended, or nothing has moved for a long time."""
    tasks = [asyncio.ensure_future(_copy(reader, writer)) for reader, writer in ways]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await asyncio.wait_for(reader.read(65536), _IDLE_SECONDS):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def main() -> None:
    config = json.loads(sys.stdin.buffer.read())
    lifeline = socket.socket(fileno=int(sys.argv[1]))
    data, fds, _, _ = socket.recv_fds(lifeline, 1, 1)
    if not data or not fds:
        return
    listener = socket.socket(fileno=fds[0])
    server = await asyncio.start_server(Proxy(config).serve, sock=listener, limit=_HEAD_LIMIT)
    asyncio.get_running_loop().add_reader(lifeline, os._exit, 0)  # the sandbox has ended
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
