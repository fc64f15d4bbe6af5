"""Base classes of the desktops that stand in front of another one: to record it, to hide secrets, to replay it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from operator import methodcaller
from typing import Any, TypeVar

from .base import Button, Desktop, Direction, Point, Region, Screenshot, Settled, Size, VncEndpoint
from .machine import CommandResult, FileContent, Listing

T = TypeVar("T")
NOTHING = type(None)


class CallDesktop(Desktop):
    """A desktop whose actions all pass :meth:`call`, with their arguments by name, defaults included."""

    @abstractmethod
    async def call(self, kind: type[T], method: str, **arguments: Any) -> T:
        """Carry out ``method``; the result is a ``kind``."""

    async def screenshot(self) -> Screenshot:
        return await self.call(Screenshot, "screenshot")

    async def zoom(self, region: Region) -> Screenshot:
        return await self.call(Screenshot, "zoom", region=region)

    async def settle(self) -> Settled:
        return await self.call(Settled, "settle")

    async def cursor_position(self) -> Point:
        return await self.call(Point, "cursor_position")

    async def resize(self, size: Size) -> None:
        await self.call(NOTHING, "resize", size=size)

    async def move(self, point: Point) -> Settled:
        return await self.call(Settled, "move", point=point)

    async def click(
        self, button: Button = "left", point: Point | None = None, *, count: int = 1, modifiers: str | None = None
    ) -> Settled:
        return await self.call(Settled, "click", button=button, point=point, count=count, modifiers=modifiers)

    async def button_down(self, button: Button = "left") -> Settled:
        return await self.call(Settled, "button_down", button=button)

    async def button_up(self, button: Button = "left") -> Settled:
        return await self.call(Settled, "button_up", button=button)

    async def drag(self, start: Point, end: Point, *, modifiers: str | None = None) -> Settled:
        return await self.call(Settled, "drag", start=start, end=end, modifiers=modifiers)

    async def scroll(
        self, direction: Direction, amount: int, point: Point | None = None, *, modifiers: str | None = None
    ) -> Settled:
        arguments = {"direction": direction, "amount": amount, "point": point, "modifiers": modifiers}
        return await self.call(Settled, "scroll", **arguments)

    async def key(self, combo: str, repeat: int = 1) -> Settled:
        return await self.call(Settled, "key", combo=combo, repeat=repeat)

    async def hold_key(self, combo: str, seconds: float) -> Settled:
        return await self.call(Settled, "hold_key", combo=combo, seconds=seconds)

    async def type_text(self, text: str) -> Settled:
        return await self.call(Settled, "type_text", text=text)

    async def release_all(self) -> None:
        await self.call(NOTHING, "release_all")

    async def sleep(self, seconds: float) -> None:
        await self.call(NOTHING, "sleep", seconds=seconds)

    async def get_clipboard(self) -> str:
        return await self.call(str, "get_clipboard")

    async def set_clipboard(self, text: str) -> None:
        await self.call(NOTHING, "set_clipboard", text=text)

    async def run_command(self, command: str, timeout: float = 120.0) -> CommandResult:
        return await self.call(CommandResult, "run_command", command=command, timeout=timeout)

    async def restart_shell(self) -> None:
        await self.call(NOTHING, "restart_shell")

    async def execute(
        self, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 30.0, limit: int = 10_000_000
    ) -> tuple[int, bytes, bytes]:
        arguments = {"argv": argv, "stdin": stdin, "timeout": timeout, "limit": limit}
        return await self.call(tuple[int, bytes, bytes], "execute", **arguments)

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        return await self.call(int, "write_file", path=path, chunks=chunks)

    async def list_files(self, path: str = "") -> Listing:
        return await self.call(Listing, "list_files", path=path)

    async def browse(self, member: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return await self.call(dict[str, Any], "browse", member=member, arguments=dict(arguments))

    async def browser_screenshot(self, tab_id: str | None = None, region: Region | None = None) -> Screenshot:
        return await self.call(Screenshot, "browser_screenshot", tab_id=tab_id, region=region)


class DelegatingDesktop(CallDesktop):
    """Everything of ``inner``; subclasses override :meth:`call` or single methods."""

    def __init__(self, inner: Desktop) -> None:
        self.inner = inner

    async def call(self, kind: type[T], method: str, **arguments: Any) -> T:
        result: T = await methodcaller(method, **arguments)(self.inner)
        return result

    @property
    def desktop_id(self) -> str:
        return self.inner.desktop_id

    @property
    def size(self) -> Size:
        return self.inner.size

    @property
    def true_size(self) -> Size:
        return self.inner.true_size

    @property
    def container_id(self) -> str | None:
        return self.inner.container_id

    @property
    def vnc_port(self) -> int | None:
        return self.inner.vnc_port

    @property
    def isolated(self) -> bool:
        return self.inner.isolated

    @property
    def image_digest(self) -> str | None:
        return self.inner.image_digest

    @property
    def outlives_server(self) -> bool:
        return self.inner.outlives_server

    @property
    def recorded(self) -> bool:
        return self.inner.recorded

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
