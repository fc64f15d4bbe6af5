"""A desktop made of an RFB connection (screen and input) and a machine (shell and files)."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cambio_lab.errors import ActionError
from cambio_lab.settings import Settings

from . import files, keys
from .base import Button, Desktop, Direction, Point, Region, Screenshot, Settled, Size, VncEndpoint
from .browser.members import Browser
from .devices import InputDevices
from .files import FileContent, Listing
from .machine import CommandResult, Machine, Shell, run
from .rfb.client import Connection
from .screen import Frame, View, encode, fit_inside, fit_model, thumbnail
from .xserver import Keymap, Pointer, expected_wait

log = logging.getLogger(__name__)

_ENCODERS = ThreadPoolExecutor(2, thread_name_prefix="encode")
_MANAGED_TIMEOUT = 10.0
"""Seconds to wait for the window manager: a desktop without one is still of use."""

Forget = Callable[["ConnectedDesktop"], None]


class ConnectedDesktop(Desktop):
    """Providers subclass it; they say whether it is alive and how it is removed. ``forget`` is told when it closes."""

    def __init__(
        self, desktop_id: str, endpoint: VncEndpoint, machine: Machine, settings: Settings, forget: Forget
    ) -> None:
        self.desktop_id = desktop_id
        self._forget = forget
        self.settings = settings
        self.machine = machine
        self._endpoint = endpoint
        self._connection = Connection(
            endpoint, self.alive, self.cause, quiet=settings.settle_quiet, cap=settings.settle_cap
        )
        self._pointer = Pointer(machine)
        self._devices = InputDevices(self._connection, self._pointer, primary_paste=settings.primary_paste)
        self._keymap = Keymap(self._connection, machine)
        self._shell = Shell(machine)
        self._browser = Browser(machine)
        self._limits: tuple[int, int] | None = None
        self._kind: str | None = None
        self._latest: tuple[tuple[int, Size], asyncio.Future[Screenshot]] | None = None
        """The latest screenshot, encoded or being encoded, with the screen's serial and the size that it shows."""
        self._starting: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connect; the whole screen has been asked for."""
        await self._connection.open()

    def follow_start(self, start: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let keys and programs wait for the keymap and the window manager, of which ``start`` tells the machine."""
        machine = self.machine
        machine.keyed.clear()
        machine.managed.clear()

        def over(task: asyncio.Task[None]) -> None:
            machine.keyed.set()  # a caller that waits finds out by itself that the desktop is gone
            machine.managed.set()
            if not task.cancelled() and (error := task.exception()) is not None:
                log.info("desktop not ready: desktop=%s error=%s", self.desktop_id[:32], error)

        self._starting = asyncio.create_task(start, name="desktop-start")
        self._starting.add_done_callback(over)
        asyncio.get_running_loop().call_later(_MANAGED_TIMEOUT, machine.managed.set)
        return self._starting

    # Size
    @property
    def true_size(self) -> Size:
        """Size of the X screen."""
        return self._connection.screen.size

    @property
    def size(self) -> Size:
        return self._view.image

    @property
    def _view(self) -> View:
        screen = self.true_size
        return View(screen, fit_model(screen, *self._limits) if self._limits else fit_model(screen))

    def limit_screenshots(self, long_edge: int, tokens: int, image_format: str | None = None) -> None:
        self._limits = (long_edge, tokens)
        self._kind = image_format
        self._latest = None

    # Screen
    async def screenshot(self) -> Screenshot:
        await self.machine.managed.wait()  # before, the screen is black
        await self._connection.settle(calm=self._foresee)
        return await asyncio.shield(self._current())

    def frame(self) -> Frame:
        """Return the pixels as they are now, ``(height, width, 4)`` in blue, green, red, unused; a copy."""
        return self._connection.screen.crop()

    def _current(self) -> asyncio.Future[Screenshot]:
        """Return a screenshot of the screen as it is now: the latest one while nothing has changed, else a new one."""
        view, screen = self._view, self._connection.screen
        key = (screen.serial, view.image)
        at_hand = self._latest
        if at_hand is None or at_hand[0] != key or (at_hand[1].done() and at_hand[1].exception()):
            at_hand = self._latest = (key, self._encode(screen.crop(), view.image))
        return at_hand[1]

    def _foresee(self) -> None:
        """Encode while the rest of the quiet period passes: what is on the screen then is mostly what is there now."""
        if not self._connection.watch.restless:
            self._current()

    def _encode(self, frame: Frame, size: Size) -> asyncio.Future[Screenshot]:
        kind = self._kind or self.settings.image_format
        return asyncio.get_running_loop().run_in_executor(_ENCODERS, encode, frame, kind, size)

    async def zoom(self, region: Region) -> Screenshot:
        await self._connection.settle()
        view = self._view
        true = view.region_to_screen(region)
        size = Size(true.x1 - true.x0, true.y1 - true.y0)
        return await self._encode(self._connection.screen.crop(true), fit_inside(size, view.image))

    @property
    def revision(self) -> object:
        """Equal to an earlier one only if nothing has been drawn since."""
        screen = self._connection.screen
        return screen, screen.serial

    async def thumbnail(self, width: int = 320) -> Screenshot:
        if not 16 <= width <= 4096:
            raise ActionError("A thumbnail is between 16 and 4096 pixels wide.")
        await self._connection.client()
        screen = self.true_size
        size = Size(width, max(1, round(screen.height * width / screen.width)))
        step = max(1, screen.width // (3 * width))  # three pixels for each that is shown are enough
        frame = self._connection.screen.thin(step)
        return await asyncio.get_running_loop().run_in_executor(_ENCODERS, thumbnail, frame, size)

    async def settle(self) -> Settled:
        return await self._connection.settle()

    async def cursor_position(self) -> Point:
        return self._view.to_image(await self._pointer.locate())

    # Input
    async def _act(self, action: Awaitable[None], expect: float = 0.0) -> Settled:
        begin = time.perf_counter()
        await action
        took = (time.perf_counter() - begin) * 1000
        settled = await self._connection.settle(expect, self._foresee)
        return Settled(settled.waited_ms, settled.quiet, took)

    async def move(self, point: Point) -> Settled:
        return await self._act(self._devices.move(self._view.to_screen(point)))

    async def click(
        self, button: Button = "left", point: Point | None = None, *, count: int = 1, modifiers: str | None = None
    ) -> Settled:
        target = point and self._view.to_screen(point)
        return await self._act(self._devices.click(button, target, count, modifiers))

    async def button_down(self, button: Button = "left") -> Settled:
        return await self._act(self._devices.button(button, True))

    async def button_up(self, button: Button = "left") -> Settled:
        return await self._act(self._devices.button(button, False))

    async def drag(self, start: Point, end: Point, *, modifiers: str | None = None) -> Settled:
        begin, finish = self._view.to_screen(start), self._view.to_screen(end)
        return await self._act(self._devices.drag(begin, finish, modifiers))

    async def scroll(
        self, direction: Direction, amount: int, point: Point | None = None, *, modifiers: str | None = None
    ) -> Settled:
        target = point and self._view.to_screen(point)
        return await self._act(self._devices.scroll(direction, amount, target, modifiers))

    async def key(self, combo: str, repeat: int = 1) -> Settled:
        parsed = keys.parse(combo)
        await self._keymap.reserve(parsed.key)
        return await self._act(self._devices.key(parsed, repeat))

    async def hold_key(self, combo: str, seconds: float) -> Settled:
        parsed = keys.parse(combo)
        await self._keymap.reserve(parsed.key)
        return await self._act(self._devices.hold(parsed, seconds))

    async def type_text(self, text: str) -> Settled:
        return await self._act(self._keymap.type(text), expected_wait(text))

    def forget_keyboard(self) -> None:
        """Another server typed on this desktop before us."""
        self._keymap.forget()

    async def release_all(self) -> None:
        await self._devices.release_all()

    # Clipboard
    async def get_clipboard(self) -> str:
        return await (await self._connection.client()).fetch_text()

    async def set_clipboard(self, text: str) -> None:
        client = await self._connection.client()
        await client.clipboard.offer(text)
        await client.sync()

    # Shell and files
    async def run_command(self, command: str, timeout: float = 120.0) -> CommandResult:
        return await self._shell.run(command, timeout)

    async def restart_shell(self) -> None:
        await self._shell.restart()

    async def execute(
        self, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 30.0, limit: int = 10_000_000
    ) -> tuple[int, bytes, bytes]:
        return await run(self.machine, argv, stdin=stdin, timeout=timeout, limit=limit)

    def read_file(self, path: str) -> FileContent:
        return files.read(self.machine, path, self.settings.max_file_bytes)

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        return await files.write(self.machine, path, chunks, self.settings.max_file_bytes)

    async def list_files(self, path: str = "") -> Listing:
        return await files.entries(self.machine, path)

    # Browser
    @property
    def has_browser(self) -> bool:
        return True  # the desktop's image has Chromium; where it is missing a call says so

    def limit_browser(self, hosts: Sequence[str] | None, members: frozenset[str]) -> None:
        self._browser.limit(hosts, members)

    async def browse(self, member: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return await self._browser.act(member, arguments)

    async def browser_screenshot(self, tab_id: str | None = None, region: Region | None = None) -> Screenshot:
        return await self._browser.screenshot(tab_id, region)

    # Life
    async def resize(self, size: Size) -> None:
        if not (320 <= size.width <= 7680 and 240 <= size.height <= 4320):
            raise ActionError(f"{size} is no possible screen size.", hint="From 320x240 to 7680x4320.")
        await (await self._connection.client()).resize(size)
        await self._connection.settle()

    def endpoint(self) -> VncEndpoint:
        return self._endpoint

    async def cause(self) -> str:
        """Return why it is not alive any more, for people and the model."""
        return "The desktop stopped."

    @property
    def connected(self) -> bool:
        """Whether the RFB connection stands."""
        return self._connection.connected

    async def release(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._starting is not None:
                self._starting.cancel()
                await asyncio.wait([self._starting])
            await self._connection.close()
            await self._shell.close()
            await self._browser.close()
            self._pointer.close()
        finally:
            self._forget(self)

    async def lost(self) -> str:
        return await self._connection.lost()

    async def close(self) -> None:
        if not self._closed:
            await self.release()
            await self._destroy()

    @abstractmethod
    async def _destroy(self) -> None:
        """Remove it from where it runs."""
