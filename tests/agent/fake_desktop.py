"""A whole desktop in memory, for tests of the agent alone: it records what was done and can be told to fail."""

from __future__ import annotations

import asyncio
import io
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import numpy
from PIL import Image

from cambio_lab.desktop.base import Button, Desktop, Direction, Point, Region, Screenshot, Settled, Size, VncEndpoint
from cambio_lab.desktop.files import FileContent, Listing
from cambio_lab.desktop.machine import CommandResult
from cambio_lab.errors import ActionError, DesktopLost


def png(size: Size, seed: int = 0, *, noise: int = 0) -> bytes:
    """A screenshot of this size; ``noise`` rows of random pixels make it heavier (about 3.8 KB a row at 1280)."""
    generator = numpy.random.default_rng(seed)
    pixels = numpy.full((size.height, size.width, 3), 200, dtype=numpy.uint8)
    pixels[: noise or 1] = generator.integers(0, 255, (noise or 1, size.width, 3), dtype=numpy.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class FakeDesktop(Desktop):
    """A whole desktop in memory. ``done`` lists what was performed, as tuples."""

    desktop_id = "fake"

    def __init__(self, size: Size = Size(1280, 800), *, noise: int = 0) -> None:  # noqa: B008
        self.done: list[tuple[Any, ...]] = []
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = {"."}
        self.on: dict[str, Callable[[], Any]] = {}
        """What to do instead of a method: ``on["click"] = raise_something``."""
        self.cursor = Point(0, 0)
        self.command = CommandResult("", "", 0)
        self.held = 0
        self.delay = 0.0
        self._size = size
        self._screenshots = [png(size, seed, noise=noise) for seed in range(3)]
        self._shots = 0
        self._death: asyncio.Future[str] | None = None

    @property
    def size(self) -> Size:
        return self._size

    async def _do(self, name: str, *arguments: Any) -> Settled:
        if self._death is not None and self._death.done():
            raise DesktopLost(self._death.result())
        if name in self.on:
            outcome = self.on[name]()
            if asyncio.iscoroutine(outcome):
                await outcome
        if self.delay:
            await asyncio.sleep(self.delay)
        self.done.append((name, *arguments))
        return Settled(waited_ms=1.0, action_ms=0.5)

    async def screenshot(self) -> Screenshot:
        await self._do("screenshot")
        self._shots += 1
        return Screenshot(self._screenshots[self._shots % 3], "image/png", *self._size, encode_ms=2.0)

    async def zoom(self, region: Region) -> Screenshot:
        await self._do("zoom", region)
        return Screenshot(self._screenshots[0], "image/png", *self._size)

    async def thumbnail(self, width: int = 320) -> Screenshot:
        return Screenshot(self._screenshots[0], "image/png", *self._size)

    async def settle(self) -> Settled:
        return Settled()

    async def cursor_position(self) -> Point:
        await self._do("cursor_position")
        return self.cursor

    async def move(self, point: Point) -> Settled:
        self.cursor = point
        return await self._do("move", point)

    async def click(
        self, button: Button = "left", point: Point | None = None, *, count: int = 1, modifiers: str | None = None
    ) -> Settled:
        return await self._do("click", button, point, count, modifiers)

    async def button_down(self, button: Button = "left") -> Settled:
        self.held += 1
        return await self._do("button_down", button)

    async def button_up(self, button: Button = "left") -> Settled:
        self.held -= 1
        return await self._do("button_up", button)

    async def drag(self, start: Point, end: Point, *, modifiers: str | None = None) -> Settled:
        return await self._do("drag", start, end, modifiers)

    async def scroll(
        self, direction: Direction, amount: int, point: Point | None = None, *, modifiers: str | None = None
    ) -> Settled:
        return await self._do("scroll", direction, amount, point, modifiers)

    async def key(self, combo: str, repeat: int = 1) -> Settled:
        if combo == "NoSuchKey":
            raise ActionError("NoSuchKey is not a key name.")
        return await self._do("key", combo, repeat)

    async def hold_key(self, combo: str, seconds: float) -> Settled:
        self.held += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.held -= 1
        return await self._do("hold_key", combo, seconds)

    async def type_text(self, text: str) -> Settled:
        return await self._do("type_text", text)

    async def release_all(self) -> None:
        self.held = 0
        self.done.append(("release_all",))

    async def get_clipboard(self) -> str:
        return ""

    async def set_clipboard(self, text: str) -> None:
        await self._do("set_clipboard", text)

    async def run_command(self, command: str, timeout: float = 120.0) -> CommandResult:
        if command.startswith("sleep "):
            await asyncio.sleep(float(command.split()[1]))
        await self._do("run_command", command, timeout)
        return self.command

    async def restart_shell(self) -> None:
        await self._do("restart_shell")

    async def execute(
        self, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 30.0, limit: int = 10_000_000
    ) -> tuple[int, bytes, bytes]:
        if argv[0] == "test":
            return (0 if argv[2] in self.folders else 1), b"", b""
        listing = "".join(f"f {len(data)} {path}\n" for path, data in self.files.items())
        return 0, listing.encode(), b""

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(path))

    async def _read(self, path: str) -> AsyncGenerator[bytes, None]:
        if posixpath.normpath(path) not in self.files:
            raise ActionError(f"{path} does not exist.")
        data = self.files[posixpath.normpath(path)]
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        data = chunks if isinstance(chunks, bytes) else b"".join([chunk async for chunk in chunks])
        self.files[posixpath.normpath(path)] = data
        return len(data)

    async def list_files(self, path: str = "") -> Listing:
        return Listing()

    async def resize(self, size: Size) -> None:
        self._size = size

    def endpoint(self) -> VncEndpoint:
        return VncEndpoint(host="127.0.0.1", port=1)

    async def alive(self) -> bool:
        return self._death is None or not self._death.done()

    async def lost(self) -> str:
        if self._death is None:
            self._death = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._death)

    def die(self, reason: str = "The container is gone.") -> None:
        if self._death is None:
            self._death = asyncio.get_running_loop().create_future()
        if not self._death.done():
            self._death.set_result(reason)

    async def close(self) -> None:
        self.done.append(("close",))
