"""What a program in a sandbox can do to anyone else: nothing. Each attempt is made as the desktop's own user."""

from __future__ import annotations

import asyncio
import http.server
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.sandbox.provider import SandboxDesktop, SandboxProvider
from cambio_lab.settings import Settings

MEGABYTE = 1024**2
ATTACKS = Path(__file__).with_name("attacks.sh")
"""One line for each attempt: a name, then what it gave; nothing where the wall held."""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the host's secrets")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def host_port() -> Iterator[int]:
    """A server on every address of this machine, as a careless Jupyter would be."""
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def host_sockets(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A Unix socket with a path and one without, both listening."""
    abstract = f"cambio-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as nameless:
        named.bind(str(tmp_path / "socket"))
        nameless.bind(f"\0{abstract}")
        named.listen()
        nameless.listen()
        yield str(tmp_path / "socket"), abstract


@pytest.fixture
async def provider() -> AsyncIterator[SandboxProvider]:
    provider = SandboxProvider(Settings(), server_id=uuid.uuid4().hex)
    yield provider
    await provider.stop()


def start_victim() -> subprocess.Popen[bytes]:
    """A process of this machine."""
    return subprocess.Popen(["sleep", "120"])


def host_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.200", 9))
        return str(probe.getsockname()[0])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("network", ["open", "none", "allow"])
async def test_every_attempt_is_refused(
    provider: SandboxProvider,
    host_port: int,
    host_sockets: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    secret = f"secret-{uuid.uuid4().hex}"
    marker = tmp_path / "marker"
    marker.write_text(secret)
    other = await provider.acquire("other", DesktopOptions(network="none"))
    await other.write_file("neighbour.txt", b"the neighbour's file")
    desktop = await provider.acquire("attacker", DesktopOptions(network=network, allow_hosts=("localhost",)))  # type: ignore[arg-type]
    attacks = ATTACKS.read_text()
    with start_victim() as victim:
        variables = {
            "MARKER": str(marker),
            "SECRET": secret[:-1] + "[" + secret[-1] + "]",  # so that the attempt does not find itself
            "VICTIM": str(victim.pid),
            "HOST": host_address(),
            "PORT": str(host_port),
            "SOCKET": host_sockets[0],
            "ABSTRACT": host_sockets[1],
            "OTHER": str(Path(other.endpoint().unix_path or "").parent),
        }
        prefix = "\n".join(f"{name}='{value}'" for name, value in variables.items())
        await desktop.write_file("attacks.sh", f"{prefix}\n{attacks}".encode())
        _, out, error = await desktop.execute(["bash", "attacks.sh"], timeout=100)
        victim.kill()
    found = dict(line.split("\t", 1) for line in out.decode().splitlines())
    assert len(found) == attacks.count("\nsay "), error
    assert {name: got for name, got in found.items() if got} == {}
    assert await other.alive()
    assert await desktop.alive()
    assert (await desktop.screenshot()).width == 1280


async def hosts_processes() -> int:
    return len(await asyncio.to_thread(os.listdir, "/proc"))


@pytest.mark.timeout(120)
async def test_a_fork_bomb_stays_inside(provider: SandboxProvider) -> None:
    victim, desktop = [await provider.acquire(name, DesktopOptions(network="none")) for name in ("victim", "attacker")]
    before = await hosts_processes()
    bomb = asyncio.create_task(desktop.run_command(":(){ :|:& };:; sleep 4", timeout=6))
    await asyncio.sleep(2)
    assert await hosts_processes() - before < 800
    begin = time.monotonic()
    assert (await victim.execute(["echo", "fine"]))[1] == b"fine\n"
    assert time.monotonic() - begin < 10
    assert (await desktop.execute(["echo", "here"]))[0] in (0, 126)
    bomb.cancel()
    await asyncio.wait([bomb])
    await desktop.close()
    assert (await victim.screenshot()).width == 1280


def resident(settings: Settings) -> int:
    """Bytes that processes and memory-backed files of this machine hold."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value, *_ = line.split()
        found[name] = int(value) * 1024
    return found["MemTotal:"] - found["MemAvailable:"]


HOGS = {
    "one process": "b = []\nwhile True: b.append(bytearray(20_000_000))",
    "many processes": "import os, time\nfor _ in range(8): os.fork()\nb = bytearray(60_000_000)\ntime.sleep(60)",
    "shared memory": (
        "import ctypes, time\nc = ctypes.CDLL(None)\nc.shmat.restype = ctypes.c_void_p\n"
        "while True:\n"
        "    p = c.shmat(c.shmget(0, 20_000_000, 0o1600), None, 0)\n"
        "    ctypes.memset(ctypes.c_void_p(p), 1, 20_000_000)\n"
        "    c.shmdt(ctypes.c_void_p(p))"
    ),
    "shared mappings": (
        "import mmap\nb = []\nwhile True:\n    m = mmap.mmap(-1, 20_000_000); m[:] = bytes(len(m)); b.append(m)"
    ),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "hog", [pytest.param(name, marks=[pytest.mark.slow] * (name == "many processes")) for name in HOGS]
)
async def test_memory_is_limited(hog: str) -> None:
    settings = replace(Settings(), desktop_memory=400 * MEGABYTE)
    provider = SandboxProvider(settings, server_id=uuid.uuid4().hex)
    try:
        desktop = await provider.acquire("test", DesktopOptions(network="none"))
        before = resident(settings)
        running = asyncio.create_task(desktop.execute(["python3", "-c", HOGS[hog]], timeout=15))
        most = 0
        while not running.done() and most < 2000 * MEGABYTE:
            most = max(most, resident(settings) - before)
            await asyncio.sleep(0.05)
        assert most < 1600 * MEGABYTE
        await asyncio.wait([running])
        assert running.exception() is not None or running.result()[0] != 0
        assert isinstance(desktop, SandboxDesktop)
        assert await desktop.alive()
        assert (await desktop.execute(["echo", "fine"]))[1] == b"fine\n"
    finally:
        await provider.stop()
