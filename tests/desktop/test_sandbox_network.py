"""What a sandbox reaches in each network mode, against real listeners here and in a second network namespace."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.sandbox import RLIMITS, network
from cambio_lab.desktop.sandbox.provider import SandboxDesktop, SandboxProvider
from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

INTERNET, OTHER, HOST = "198.51.100.10", "198.51.100.11", "198.51.100.1"
"""Addresses set aside for documentation: public as far as any rule can tell. The last is this machine's own."""
PRIVATE, METADATA = "10.77.0.2", "169.254.169.254"
NOTHING = ""
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello from " + self.headers["Host"].encode())
    do_POST = do_GET
http.server.ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever()
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(scope="module", autouse=True)
def other_machine() -> Iterator[None]:
    """A network namespace behind this one: a web server on public addresses, a private one and the metadata address."""
    name = f"sb{uuid.uuid4().hex[:6]}"
    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        for address in (f"{HOST}/24", "10.77.0.1/24", "169.254.169.253/30"):
            ip("addr", "add", address, "dev", name)
        ip("link", "set", name, "up")
        for address in (f"{INTERNET}/24", f"{OTHER}/24", f"{PRIVATE}/24", f"{METADATA}/30"):
            ip("-n", name, "addr", "add", address, "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", HOST)
        server = subprocess.Popen(
            ["ip", "netns", "exec", name, "python3", "-c", SERVER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for address in (INTERNET, PRIVATE, METADATA):
            curl(address)  # they answer: what a sandbox does not get is refused, not missing
        yield
        server.kill()
        server.wait()
    finally:
        ip("netns", "del", name)


def curl(address: str) -> None:
    subprocess.run(
        ["curl", "-sf", "--retry-connrefused", "--retry", "9", f"http://{address}/"], check=True, capture_output=True
    )


@pytest.fixture
def host_port() -> Iterator[int]:
    """A listener on every address of this machine that says hello."""
    with socket.create_server(("0.0.0.0", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nthe host's secrets")

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
async def sandboxes() -> AsyncIterator[SandboxProvider]:
    names = {
        "example.test": INTERNET,
        "sub.example.test": INTERNET,
        "other.test": OTHER,
        "rebound.test": METADATA,
        "inside.test": PRIVATE,
        "host.test": HOST,
    }
    found = SandboxProvider(Settings(), server_id=uuid.uuid4().hex, extra_hosts=names)
    yield found
    await found.stop()


async def fetch(desktop: SandboxDesktop, *arguments: str) -> str:
    """What curl got with status 200, else nothing."""
    code, out, _ = await desktop.execute(["curl", "-sf", "-m", "4", *arguments])
    return out.decode() if code == 0 else NOTHING


async def refused(desktop: SandboxDesktop, host_port: int, *options: str) -> None:
    """Nothing that is not the public internet: private, metadata, this machine by each of its addresses."""
    hosts = [PRIVATE, METADATA, "10.77.0.1", "192.168.0.1", "172.17.0.1"]
    hosts += [
        f"{address}:{host_port}" for address in ("127.0.0.1", "10.0.2.2", "10.0.2.3", HOST, "0.0.0.0", "localhost")
    ]
    answers = await asyncio.gather(*(fetch(desktop, *options, f"http://{host}/") for host in hosts))
    assert dict(zip(hosts, answers, strict=True)) == dict.fromkeys(hosts, NOTHING)


@pytest.mark.timeout(60)
async def test_open_in_user_mode(sandboxes: SandboxProvider, host_port: int) -> None:
    assert network.missing_for_link(Path("/")) == ""
    desktop = await sandboxes.acquire("test", DesktopOptions(network="open"))
    assert await fetch(desktop, f"http://{INTERNET}/") == f"hello from {INTERNET}"
    await refused(desktop, host_port)
    code, _, _ = await desktop.execute(["sh", "-c", "nft flush ruleset || ip link set tap0 down || ip addr flush tap0"])
    assert code != 0
    await refused(desktop, host_port)


@pytest.mark.timeout(60)
async def test_open_without_user_mode_is_the_web_through_a_proxy(
    sandboxes: SandboxProvider, host_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "missing_for_link", lambda root: "/dev/net/tun cannot be opened")
    assert "/dev/net/tun" in (await sandboxes.health()).summary
    desktop = await sandboxes.acquire("test", DesktopOptions(network="open"))
    assert await fetch(desktop, f"http://{INTERNET}/path?a=b") == f"hello from {INTERNET}"
    assert await fetch(desktop, "-d", "posted", "http://example.test/") == "hello from example.test"
    assert await fetch(desktop, "-p", f"http://{OTHER}/") == f"hello from {OTHER}"
    await refused(desktop, host_port)
    await refused(desktop, host_port, "-p")
    for name in ("rebound.test", "inside.test", "host.test", "no.such.name.test"):
        assert await fetch(desktop, f"http://{name}/") == NOTHING
    assert await fetch(desktop, "--noproxy", "*", f"http://{INTERNET}/") == NOTHING


@pytest.mark.timeout(60)
async def test_allow(sandboxes: SandboxProvider, host_port: int) -> None:
    names = ("example.test", "*.wide.test", "rebound.test", "inside.test", "host.test")
    desktop = await sandboxes.acquire("test", DesktopOptions(network="allow", allow_hosts=names))
    assert await fetch(desktop, "http://example.test/") == "hello from example.test"
    assert await fetch(desktop, "http://EXAMPLE.test./") == "hello from example.test"
    # A request that names an allowed host in its head and another one in its address is one for the address.
    assert await fetch(desktop, "-H", "Host: example.test", "http://other.test/") == NOTHING
    others = (
        "other.test",
        OTHER,
        INTERNET,
        "sub.example.test",
        "example.test.evil.test",
        "example.test:22",
        "localhost",
    )
    for other in (*others, "rebound.test", "inside.test", "host.test"):
        assert await fetch(desktop, f"http://{other}/") == NOTHING, other
    for target in (f"http://{INTERNET}/", "http://example.test/"):
        assert await fetch(desktop, "--noproxy", "*", target) == NOTHING
    assert await fetch(desktop, "-p", "http://example.test:80/") == NOTHING, "a tunnel leads to port 443 only"
    code, _, _ = await desktop.execute(["timeout", "5", "getent", "hosts", "debian.org"])
    assert code != 0
    await refused(desktop, host_port)
    with pytest.raises(DesktopUnavailable, match="port"):
        await sandboxes.acquire("test", DesktopOptions(network="allow", allow_hosts=("example.org:80",)))


async def test_an_empty_allow_list_allows_nothing(sandboxes: SandboxProvider) -> None:
    desktop = await sandboxes.acquire("test", DesktopOptions(network="allow"))
    assert await fetch(desktop, "http://example.test/") == NOTHING


async def test_none(sandboxes: SandboxProvider, host_port: int) -> None:
    desktop = await sandboxes.acquire("test", DesktopOptions(network="none"))
    assert await fetch(desktop, f"http://{INTERNET}/") == NOTHING
    await refused(desktop, host_port)
    _, out, _ = await desktop.execute(["cat", "/proc/net/dev"])
    assert [line.split(":")[0].strip() for line in out.decode().splitlines()[2:]] == ["lo"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"GET http://example.test:99999/ HTTP/1.1\r\n\r\n",
        b"GET http://[::1]/ HTTP/1.1\r\n\r\n",
        b"CONNECT : HTTP/1.1\r\n\r\n",
        b"CONNECT \xff\xfe:443 HTTP/1.1\r\n\r\n",
        b"GET http://" + b"a" * 70_000 + b"/ HTTP/1.1\r\n\r\n",
        b"\0" * 100_000,
    ],
)
async def test_a_hostile_request_ends_its_own_connection(sandboxes: SandboxProvider, request_bytes: bytes) -> None:
    desktop = await sandboxes.acquire("test", DesktopOptions(network="allow", allow_hosts=("example.test",)))
    attack = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(10)\n"
        "try:\n    s.sendall(sys.stdin.buffer.read()); s.shutdown(1); print(s.recv(99)[:12])\n"
        "except ConnectionError: pass"
    )
    code, out, error = await desktop.execute(["python3", "-c", attack], stdin=request_bytes)
    assert code == 0, error
    assert b" 200" not in out
    assert await fetch(desktop, "http://example.test/") == "hello from example.test"
    assert RLIMITS in (await sandboxes.health()).summary
