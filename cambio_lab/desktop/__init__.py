"""A screen, a mouse, a keyboard, a shell and a home directory: see :mod:`cambio_lab.desktop.base`.

Importing this costs nothing; :func:`make_provider` imports what the chosen kind needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cambio_lab.settings import Settings

    from .base import DesktopProvider

Kind = Literal["docker", "local", "auto"]

__all__ = ["Kind", "make_provider"]


async def make_provider(settings: Settings, *, server_id: str, kind: str | None = None) -> DesktopProvider:
    """The provider that ``kind`` (default: ``settings.desktop``) names; ``auto`` is Docker if one is set or answers.

    ``server_id`` must be the same at each start of one server: containers are labelled with it, and only those are
    adopted or reaped. Raises :class:`~cambio_lab.errors.ConfigurationError` for an unknown kind.
    """
    from cambio_lab.errors import ConfigurationError

    kind = kind or settings.desktop
    if kind == "auto":
        from .docker.context import engine_is_named
        from .probe import engine_answers

        # A named engine that does not answer is reported by health; it never costs the user the isolation.
        kind = "docker" if engine_is_named() or await engine_answers() else "local"
    if kind == "docker":
        from .docker.provider import DockerProvider

        return DockerProvider(settings, server_id=server_id)
    if kind == "local":
        from .local.provider import LocalProvider

        return LocalProvider(settings, server_id=server_id)
    raise ConfigurationError(f"The desktop kind {kind!r} is unknown.", hint="Use docker, local or auto.")
