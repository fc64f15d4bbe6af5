"""Real desktops for the tests: containers on the engine that answers, and Xvnc on this machine."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.settings import Settings

WINDOWS = Path(__file__).with_name("windows")


@pytest.fixture
def settings() -> Settings:
    return replace(Settings(), pool_size=0)


@pytest.fixture
async def docker_provider(docker_host: str, settings: Settings) -> AsyncIterator[DockerProvider]:
    """A provider with a server id of its own; whatever it made is gone afterwards."""
    provider = await make_provider(settings, server_id=uuid.uuid4().hex, kind="docker")
    assert isinstance(provider, DockerProvider)
    yield provider
    await provider.stop()


@pytest.fixture
async def docker_desktop(docker_provider: DockerProvider) -> ConnectedDesktop:
    return await docker_provider.acquire("test", DesktopOptions())


@pytest.fixture
async def local_desktop(settings: Settings) -> AsyncIterator[ConnectedDesktop]:
    provider = await make_provider(settings, server_id=uuid.uuid4().hex, kind="local")
    desktop = await provider.acquire("test", DesktopOptions())
    assert isinstance(desktop, ConnectedDesktop)
    yield desktop
    await provider.stop()


@pytest.fixture(params=["docker", "sandbox"])
async def either(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[ConnectedDesktop]:
    """A desktop of each isolated kind in turn; `local` runs the same programs as `sandbox`, without its walls."""
    if request.param == "docker":
        request.getfixturevalue("docker_host")
    provider = await make_provider(settings, server_id=uuid.uuid4().hex, kind=request.param)
    found = await provider.acquire("test", DesktopOptions())
    assert isinstance(found, ConnectedDesktop)
    yield found
    await provider.stop()


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["docker", "sandbox"])
async def kept(request: pytest.FixtureRequest) -> AsyncIterator[ConnectedDesktop]:
    """The same for a whole module whose tests do not disturb each other."""
    if request.param == "docker":
        request.getfixturevalue("docker_host")
    provider = await make_provider(Settings(pool_size=0), server_id=uuid.uuid4().hex, kind=request.param)
    found = await provider.acquire("test", DesktopOptions())
    assert isinstance(found, ConnectedDesktop)
    yield found
    await provider.stop()
