"""Podman's Docker-compatible socket as ``DOCKER_HOST``: the main path on a real rootful Podman. Run by hand.

It has a network namespace of its own: bridges and packet rules have the same names as those of the Docker Engine here.
The image is in its store already (``docker save`` or ``podman build``); the first test says so if it is not.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cambio_lab.desktop import probe_engine
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LIMITS = '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]\n'
"""Podman's own defaults are above what a user of this machine may raise."""
SERVICE = "ip link set lo up; exec podman system service --time=0 unix://$1"


def serve(folder: Path, configuration: str) -> Iterator[str]:
    assert shutil.which("podman"), "apt-get install podman catatonit"
    (folder / "containers.conf").write_text(configuration)
    socket = folder / "podman.sock"
    environment = {"CONTAINERS_CONF": str(folder / "containers.conf"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    command = ["unshare", "--net", "sh", "-c", SERVICE, "podman", str(socket)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as service:
        while not socket.exists():
            assert service.poll() is None
            time.sleep(0.05)
        yield f"unix://{socket}"
        service.terminate()


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for host in serve(tmp_path, LIMITS):
        monkeypatch.setenv("DOCKER_HOST", host)
        yield host


@pytest.fixture
async def provider(podman: str) -> AsyncIterator[DockerProvider]:
    provider = DockerProvider(Settings(pool_size=0), server_id=uuid.uuid4().hex)
    yield provider
    await provider.stop()


async def test_screen_shell_files_and_adoption(provider: DockerProvider) -> None:
    desktop = await provider.acquire("test", DesktopOptions())
    assert (await desktop.screenshot()).width == 1280
    assert (await desktop.run_command("echo here > ~/file; cat ~/file")).stdout == "here\n"
    await desktop.write_file("sent.txt", b"sent")
    assert {"file", "sent.txt"} <= {entry.path for entry in await desktop.list_files()}
    _, status, _ = await desktop.execute(["cat", "/proc/self/status"])
    assert b"CapBnd:\t0000000000000000" in status
    assert b"NoNewPrivs:\t1" in status
    code, secret, _ = await desktop.execute(["cat", "/run/xvnc/password"])
    assert (code, secret) != (0, b"")
    health = await provider.health()
    assert "by Podman" in health.summary
    assert "NOT enforced" not in health.summary
    assert (await probe_engine()).summary.startswith("docker (isolated): Podman")
    await desktop.release()
    later = DockerProvider(Settings(pool_size=0), server_id=provider.server_id)
    adopted = await later.adopt(desktop.desktop_id, "test")
    assert adopted is not None
    assert (await adopted.run_command("cat ~/file")).stdout == "here\n"
    await later.stop()


@pytest.mark.parametrize("network", ["none", "allow"])
async def test_limited_networks(provider: DockerProvider, network: str) -> None:
    desktop = await provider.acquire("test", DesktopOptions(network=network, allow_hosts=("example.org",)))  # type: ignore[arg-type]
    assert (await desktop.screenshot()).width == 1280
    code, _, _ = await desktop.execute(["curl", "-sf", "-m", "3", "http://192.0.2.1/"])
    assert code != 0
