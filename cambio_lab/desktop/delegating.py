"""Base classes of the desktops that stand in front of another one: to record it, to hide secrets, to replay it."""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from operator import methodcaller
from typing import Any, Concatenate, ParamSpec, TypeVar

from .base import Desktop, Screenshot, Size, VncEndpoint
from .files import FileContent

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
