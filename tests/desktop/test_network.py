"""What a desktop reaches in each network mode."""

from __future__ import annotations

import asyncio
import subprocess
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.errors import DesktopUnavailable
from cambio_lab.settings import Settings

INTERNET, OTHER = "203.0.113.10", "203.0.113.11"
"""Addresses set aside for documentation: public as far as any rule can tell, and certainly nobody's."""
SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello from outside")
http.server.ThreadingHTTPServer(("0.0.0.0", 80), Handler).serve_forever()
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _until_it_answers() -> None:
    """Wait for both addresses: where no route leads to them yet, something else on the way may answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + 20
    for address in (INTERNET, OTHER):
        said: object = None
        while said != b"hello from outside":
            assert time.monotonic() < end, f"{address} answers {said!r}"
            try:
                with opener.open(f"http://{address}/", timeout=2) as answer:
                    said = answer.read()
            except OSError as error:
                said = error
                time.sleep(0.05)


@pytest.fixture
def internet(docker_host: str) -> Iterator[str]:
    """A machine "on the internet": a network namespace behind this one, with a web server on two addresses."""
    name = f"net{uuid.uuid4().hex[:6]}"
    ip("netns", "add", name)
    try:
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", "203.0.113.1/24", "dev", name)
        ip("link", "set", name, "up")
        for address in (INTERNET, OTHER):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", "203.0.113.1")
        server = subprocess.Popen(
            ["ip", "netns", "exec", name, "python3", "-c", SERVER], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _until_it_answers()
        yield INTERNET
        server.kill()
        server.wait()
    finally:
        ip("netns", "del", name)


@pytest.fixture
async def provider(settings: Settings, internet: str) -> AsyncIterator[DockerProvider]:
    names = {
        "example.test": internet,
        "sub.example.test": internet,
        "other.test": OTHER,
        "rebound.test": "169.254.169.254",
        "inside.test": "10.0.0.1",
    }
    provider = DockerProvider(settings, server_id=uuid.uuid4().hex, extra_hosts=names)
    yield provider
    await provider.stop()


async def fetch(desktop: ConnectedDesktop, *arguments: str) -> str:
    """What curl got, or its exit code in brackets. Prints the headers, for a test that fails."""
    code, out, headers = await desktop.execute(["curl", "-s", "-m", "4", "-D", "/dev/stderr", *arguments])
    print(arguments, code, headers)
    return out.decode() if code == 0 else f"[{code}]"


async def rebinding(desktop: ConnectedDesktop) -> None:
    """An allowed name that resolves to a private or the metadata address leads nowhere all the same."""
    names = ("rebound.test", "inside.test")
    status = ("-w", "%{http_code}", "-o", "/dev/null")
    answers = await asyncio.gather(*(fetch(desktop, *status, f"http://{name}/") for name in names))
    assert set(answers) <= {"503", "504", "[28]"}


async def around_the_proxy(desktop: ConnectedDesktop) -> None:
    """Without it there is nothing at all, by address, by name, by tunnel."""
    urls = (f"http://{INTERNET}/", "http://example.test/", "http://1.1.1.1/")
    answers = await asyncio.gather(*(fetch(desktop, "--noproxy", "*", url) for url in urls))
    assert all(answer.startswith("[") for answer in answers), answers
    tunnel = await fetch(desktop, "-p", "-w", "%{http_connect}", "-o", "/dev/null", f"http://{OTHER}:22/")
    assert tunnel in ("403", "[56]")


async def asking_for_names(desktop: ConnectedDesktop) -> None:
    """A lookup would be a way out."""
    lookup = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); "
        "question = bytes.fromhex('000101000001000000000000') + b'\\3www\\6debian\\3org\\0\\0\\1\\0\\1'; "
        "s.sendto(question, (%r, 53)); s.recv(9)"
    )
    asked = [["python3", "-c", lookup % resolver] for resolver in ("8.8.8.8", INTERNET)]
    asked.append(["timeout", "5", "getent", "hosts", "debian.org"])
    codes = [code for code, _, _ in await asyncio.gather(*(desktop.execute(argv) for argv in asked))]
    assert 0 not in codes


@pytest.mark.timeout(120)
async def test_allow_list(provider: DockerProvider) -> None:
    options = DesktopOptions(network="allow", allow_hosts=("example.test", "rebound.test", "inside.test"))
    desktop = await provider.acquire("test", options)
    assert await fetch(desktop, "http://example.test/") == "hello from outside"
    others = ("other.test", OTHER, INTERNET, "sub.example.test", "example.test.evil.test", "www.example.org")
    status = ("-w", "%{http_code}", "-o", "/dev/null")
    assert {await fetch(desktop, *status, f"http://{refused}/") for refused in others} == {"403"}
    await asyncio.gather(rebinding(desktop), around_the_proxy(desktop), asking_for_names(desktop))
    assert (await desktop.screenshot()).width == 1280


@pytest.mark.timeout(120)
async def test_an_allow_list_with_all_below_a_name(provider: DockerProvider) -> None:
    many = tuple(f"name-{number}.of-a-long-list.test" for number in range(500))
    hosts = ("*.example.test", "EXAMPLE.test", "sub.example.test", *many)
    desktop = await provider.acquire("test", DesktopOptions(network="allow", allow_hosts=hosts))
    for name in ("example.test", "sub.example.test"):
        assert await fetch(desktop, f"http://{name}/") == "hello from outside"
    refused = await fetch(desktop, "-w", "%{http_code}", "-o", "/dev/null", "http://other.test/")
    assert refused == "403"


async def test_an_empty_allow_list_allows_nothing(provider: DockerProvider) -> None:
    desktop = await provider.acquire("test", DesktopOptions(network="allow"))
    assert await fetch(desktop, "-w", "%{http_code}", "-o", "/dev/null", "http://example.test/") == "403"
    with pytest.raises(DesktopUnavailable, match="port"):
        await provider.acquire("test", DesktopOptions(network="allow", allow_hosts=("example.test:80",)))


async def test_none(provider: DockerProvider) -> None:
    desktop = await provider.acquire("test", DesktopOptions(network="none"))
    assert (await fetch(desktop, f"http://{INTERNET}/")).startswith("[")
    assert (await fetch(desktop, "http://169.254.169.254/")).startswith("[")
    assert (await desktop.screenshot()).width == 1280


async def test_open(provider: DockerProvider) -> None:
    desktop, neighbour = [await provider.acquire(name, DesktopOptions()) for name in ("one", "two")]
    assert await fetch(desktop, f"http://{INTERNET}/") == "hello from outside"
    _, address, _ = await neighbour.execute(["hostname", "-I"])
    for refused in ("169.254.169.254", "10.0.0.1", "192.168.0.1", "172.17.0.1", address.decode().strip() + ":5900"):
        assert (await fetch(desktop, f"http://{refused}/")).startswith("["), refused


async def test_the_proxy_goes_with_its_desktop(provider: DockerProvider, docker_host: str) -> None:
    import docker

    client = docker.APIClient(base_url=docker_host)
    label = {"label": f"org.cambio-lab.server={provider.server_id}"}
    desktop = await provider.acquire("test", DesktopOptions(network="allow", allow_hosts=("example.test",)))
    assert len(client.containers(filters=label)) == 2
    assert len(client.networks(filters=label)) == 1
    await desktop.close()
    assert not client.containers(all=True, filters=label)
    assert not client.networks(filters=label)
    client.close()


async def test_a_closed_network_is_refused_where_it_cannot_be_enforced(local_desktop: ConnectedDesktop) -> None:
    from cambio_lab.desktop import make_provider

    provider = await make_provider(replace(Settings(), pool_size=0), server_id=uuid.uuid4().hex, kind="local")
    with pytest.raises(DesktopUnavailable, match="cannot restrict"):
        await provider.acquire("test", DesktopOptions(network="none"))
    await asyncio.sleep(0)


async def test_arp_shows_no_neighbour(docker_provider: DockerProvider) -> None:
    victim, attacker = [await docker_provider.acquire(name, DesktopOptions()) for name in ("victim", "attacker")]
    address = (await victim.execute(["hostname", "-I"]))[1].decode().split()[0]
    assert await fetch(attacker, f"http://{address}:5900/") in ("[7]", "[28]")
    table = (await attacker.execute(["cat", "/proc/net/arp"]))[1].decode()
    rows = [line.split() for line in table.splitlines() if line.startswith(f"{address} ")]
    assert {row[3] for row in rows} <= {"00:00:00:00:00:00"}, table


async def test_allow_list_networks_do_not_exhaust_the_engines_pool(docker_provider: DockerProvider) -> None:
    networks = docker_provider._networks
    names = [f"cambio-a{uuid.uuid4().hex[:6]}" for _ in range(40)]
    labels = {"org.cambio-lab.server": docker_provider.server_id}
    try:
        for name in names:
            await networks._create_small(name, labels)
    finally:
        await docker_provider.reap(frozenset())
