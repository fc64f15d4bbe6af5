"""A screen, a mouse, a keyboard, a shell and a home directory: see :mod:`cambio_lab.desktop.base`.

What other parts use of it beside that contract: which kinds of desktops this machine can make (:func:`make_provider`
imports what the chosen kind needs), and the base classes of desktops that stand in front of another one, to record it,
to hide secrets, to replay it.
"""

from __future__ import annotations

import functools
import inspect
import secrets
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import replace
from operator import methodcaller
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

from cambio_lab.errors import ConfigurationError, DesktopUnavailable
from cambio_lab.settings import Settings

from .base import Desktop, Screenshot, Size, VncEndpoint
from .docker.engine import START_DOCKER, Engine
from .files import FileContent
from .provider import ISOLATION, DesktopOptions, DesktopProvider, ProviderHealth

Kind = Literal["docker", "sandbox", "local", "auto"]
KINDS: tuple[str, ...] = get_args(Kind)

__all__ = ["KINDS", "CallDesktop", "DelegatingDesktop", "Kind", "build_provider", "make_provider"]


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


P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]


def _called(method: Method[P, T]) -> Method[P, T]:
    """Make a method of the contract pass :meth:`CallDesktop.call`."""
    signature = inspect.signature(method)

    @functools.wraps(method, updated=())  # not its mark of an abstract method
    async def pass_on(self: CallDesktop, /, *arguments: P.args, **named: P.kwargs) -> T:
        bound = signature.bind(self, *arguments, **named)
        bound.apply_defaults()
        del bound.arguments["self"]
        result: T = await self.call(method.__name__, **bound.arguments)
        return result

    return pass_on


class CallDesktop(Desktop):
    """A desktop whose actions all pass :meth:`call`, with their arguments by name, defaults included."""

    @abstractmethod
    async def call(self, method: str, **arguments: Any) -> Any:
        """Carry out ``method`` and return its result."""

    screenshot = _called(Desktop.screenshot)
    zoom = _called(Desktop.zoom)
    settle = _called(Desktop.settle)
    cursor_position = _called(Desktop.cursor_position)
    resize = _called(Desktop.resize)
    move = _called(Desktop.move)
    click = _called(Desktop.click)
    button_down = _called(Desktop.button_down)
    button_up = _called(Desktop.button_up)
    drag = _called(Desktop.drag)
    scroll = _called(Desktop.scroll)
    key = _called(Desktop.key)
    hold_key = _called(Desktop.hold_key)
    type_text = _called(Desktop.type_text)
    release_all = _called(Desktop.release_all)
    sleep = _called(Desktop.sleep)
    get_clipboard = _called(Desktop.get_clipboard)
    set_clipboard = _called(Desktop.set_clipboard)
    run_command = _called(Desktop.run_command)
    restart_shell = _called(Desktop.restart_shell)
    execute = _called(Desktop.execute)
    write_file = _called(Desktop.write_file)
    list_files = _called(Desktop.list_files)
    browse = _called(Desktop.browse)
    browser_screenshot = _called(Desktop.browser_screenshot)


class DelegatingDesktop(CallDesktop):
    """Everything of ``inner``; subclasses override :meth:`call` or single methods."""

    def __init__(self, inner: Desktop) -> None:
        self.inner = inner
        self.desktop_id, self.container_id, self.vnc_port = inner.desktop_id, inner.container_id, inner.vnc_port
        self.image_digest, self.isolated = inner.image_digest, inner.isolated
        self.outlives_server, self.recorded = inner.outlives_server, inner.recorded

    async def call(self, method: str, **arguments: Any) -> Any:
        return await methodcaller(method, **arguments)(self.inner)

    @property
    def size(self) -> Size:
        return self.inner.size

    @property
    def true_size(self) -> Size:
        return self.inner.true_size

    @property
    def revision(self) -> object | None:
        return self.inner.revision

    async def thumbnail(self, width: int = 320) -> Screenshot:
        return await self.inner.thumbnail(width)

    def limit_screenshots(self, long_edge: int, tokens: int, image_format: str | None = None) -> None:
        self.inner.limit_screenshots(long_edge, tokens, image_format)

    @property
    def has_browser(self) -> bool:
        return self.inner.has_browser

    def limit_browser(self, hosts: Sequence[str] | None, members: frozenset[str]) -> None:
        self.inner.limit_browser(hosts, members)

    def read_file(self, path: str) -> FileContent:
        return self.inner.read_file(path)

    def endpoint(self) -> VncEndpoint:
        return self.inner.endpoint()

    async def alive(self) -> bool:
        return await self.inner.alive()

    async def lost(self) -> str:
        return await self.inner.lost()

    async def release(self) -> None:
        await self.inner.release()

    async def close(self) -> None:
        await self.inner.close()
