"""A screen, a mouse, a keyboard, a shell and a home directory: see :mod:`cambio_lab.desktop.base`.

Which kinds of desktops this machine can make; :func:`make_provider` imports what the chosen kind needs.
"""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import replace
from typing import Literal, get_args

from cambio_lab.errors import ConfigurationError, DesktopUnavailable
from cambio_lab.settings import Settings

from .base import Desktop
from .docker.engine import START_DOCKER, Engine
from .provider import ISOLATION, DesktopOptions, DesktopProvider, ProviderHealth

Kind = Literal["docker", "sandbox", "local", "auto"]
KINDS: tuple[str, ...] = get_args(Kind)

__all__ = ["KINDS", "Kind", "build_provider", "make_provider"]


async def make_provider(settings: Settings, *, server_id: str, kind: str | None = None) -> DesktopProvider:
    """Return the provider that ``kind`` (default: ``settings.desktop``) names.

    ``auto`` is Docker if an engine answers or one was named (``DOCKER_HOST``, a context), else the sandbox if this
    machine can make one, else a provider that refuses every desktop and says why: isolation is never lost silently.
    ``server_id`` must be the same at each start of one server: desktops carry it, and only those are adopted or reaped.
    Raises :class:`~cambio_lab.errors.ConfigurationError` for an unknown kind.
    """
    kind = kind or settings.desktop
    if kind == "auto":
        from .docker import engine_is_named
        from .sandbox.probe import examine

        # A named engine that does not answer is reported by health and by each session; nothing replaces it.
        if engine_is_named() or await engine_answers():
            kind = "docker"
        elif (sandbox := await examine(settings)).up:
            kind = "sandbox"
        else:
            return UnavailableProvider(sandbox)
    return build_provider(settings, server_id, kind)


def build_provider(settings: Settings, server_id: str, kind: str) -> DesktopProvider:
    """Return the provider of one kind by name; ``auto`` is none."""
    if kind == "docker":
        from .docker.provider import DockerProvider

        return DockerProvider(settings, server_id=server_id)
    if kind == "sandbox":
        from .sandbox.provider import SandboxProvider

        return SandboxProvider(settings, server_id=server_id)
    if kind == "local":
        from .sandbox.provider import LocalProvider

        return LocalProvider(settings, server_id=server_id)
    raise ConfigurationError(f"The desktop kind {kind!r} is unknown.", hint="Use docker, sandbox, local or auto.")


async def engine_answers() -> bool:
    """Return whether the engine that the ``docker`` command would use answers."""
    with closing(Engine()) as engine:
        return await engine.answers()


async def probe_engine() -> ProviderHealth:
    """Return whether a Docker Engine answers; ``fix`` says what to do when none does."""
    try:
        with closing(Engine()) as engine:
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
        with closing(Engine()) as engine:
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
    from .sandbox.provider import LocalProvider

    health = await LocalProvider(Settings(), server_id="doctor").health()
    return replace(health, name="local desktop")


class UnavailableProvider(DesktopProvider):
    """Refuses every desktop. The rest of the server (history, records) works."""

    name = "none"

    def __init__(self, sandbox: ProviderHealth) -> None:
        self._health = ProviderHealth(
            self.name,
            False,
            f"no Docker Engine answers, and no sandbox can be made ({sandbox.summary})",
            f"Start Docker and then this server again. Or, for a sandbox: {sandbox.fix} "
            "A desktop without isolation must be asked for by name: desktop=local.",
        )

    async def acquire(self, session_id: str, options: DesktopOptions) -> Desktop:
        raise DesktopUnavailable(f"No isolated desktop: {self._health.summary}.", hint=self._health.fix)

    async def health(self) -> ProviderHealth:
        return self._health
