"""A screen, a mouse, a keyboard, a shell and a home directory: see :mod:`cambio_lab.desktop.base`.

Importing this costs nothing; :func:`make_provider` imports what the chosen kind needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from cambio_lab.settings import Settings

    from .provider import DesktopProvider

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
        from .docker.context import engine_is_named
        from .probe import engine_answers
        from .sandbox.probe import examine

        # A named engine that does not answer is reported by health and by each session; nothing replaces it.
        if engine_is_named() or await engine_answers():
            kind = "docker"
        elif (sandbox := await examine(settings)).up:
            kind = "sandbox"
        else:
            from .provider import UnavailableProvider

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
        from .sandbox.local import LocalProvider

        return LocalProvider(settings, server_id=server_id)
    from cambio_lab.errors import ConfigurationError

    raise ConfigurationError(f"The desktop kind {kind!r} is unknown.", hint="Use docker, sandbox, local or auto.")
