"""What this machine has for desktops; for ``auto`` and for ``cambio-lab doctor``."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from cambio_lab.errors import ConfigurationError
from cambio_lab.settings import Settings

from .docker.engine import START_DOCKER, Engine
from .provider import ISOLATION, DesktopOptions, ProviderHealth


@asynccontextmanager
async def _engine() -> AsyncIterator[Engine]:
    engine = Engine()
    try:
        yield engine
    finally:
        engine.close()


async def engine_answers() -> bool:
    """Return whether the engine that the ``docker`` command would use answers."""
    async with _engine() as engine:
        return await engine.answers()


async def probe_engine() -> ProviderHealth:
    """Return whether a Docker Engine answers; ``fix`` says what to do when none does."""
    try:
        async with _engine() as engine:
            if not await engine.answers():
                return ProviderHealth("engine", False, f"no Docker Engine answers at {engine.host}", START_DOCKER)
            podman = await engine.podman()
            version = (await engine.call(lambda client: client.version()))["Version"]
            kind = "Podman" if podman else "Docker Engine"
            return ProviderHealth("engine", True, f"{ISOLATION['docker']}: {kind} {version} at {engine.host}")
    except ConfigurationError as error:
        return ProviderHealth("engine", False, error.message, error.hint)


async def probe_image(settings: Settings) -> ProviderHealth:
    """Is the desktop's image built, in the version that this package describes?"""
    from .docker.image import image_exists, image_tag

    reference = image_tag(settings.image)
    try:
        async with _engine() as engine:
            if not await engine.answers():
                return ProviderHealth("image", False, "needs a Docker Engine", START_DOCKER)
            if await image_exists(engine, reference):
                return ProviderHealth("image", True, reference)
            return ProviderHealth("image", False, f"{reference} is not built", "cambio-lab image build")
    except ConfigurationError as error:
        return ProviderHealth("image", False, "needs a Docker Engine", error.hint)


async def probe_container(settings: Settings) -> ProviderHealth:
    """Start a desktop and take a screenshot, which says how VNC reaches a container."""
    from .docker.provider import DockerProvider

    provider = DockerProvider(replace(settings, pool_size=0), server_id=f"doctor-{secrets.token_hex(4)}")
    try:
        desktop = await provider.acquire("doctor", DesktopOptions())
        await desktop.screenshot()
    finally:
        await provider.stop()
    way = "through its published port" if provider.direct else "through the engine: ports are not reachable from here"
    return ProviderHealth("container", True, f"VNC {way}")


async def probe_sandbox(settings: Settings) -> ProviderHealth:
    """Can sandboxes be made here? Says which programs, limits and network they get, too."""
    from .sandbox.probe import describe, examine

    found = await examine(settings)
    return replace(found, summary=f"{found.summary}; {await describe(settings)}") if found.up else found


async def probe_local() -> ProviderHealth:
    """Are the programs of the local desktop there?"""
    from .sandbox.local import LocalProvider

    health = await LocalProvider(Settings(), server_id="doctor").health()
    return replace(health, name="local desktop")
