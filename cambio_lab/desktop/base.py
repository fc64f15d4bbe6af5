"""The contract of a desktop: a screen, a mouse, a keyboard, a shell and a home directory.

Coordinates are pixels of the screenshot, origin top left, ``0 <= x < width``. A point outside raises
:class:`~cambio_lab.errors.ActionError`; nothing is ever clamped. Durations are seconds in arguments and milliseconds
in results. Every method may raise :class:`~cambio_lab.errors.DesktopLost`, and every one may be cancelled: keys and
buttons are released whatever happens.
"""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from cambio_lab.errors import ActionError

from .files import FileContent, Listing
from .machine import CommandResult

Button = Literal["left", "middle", "right"]
Direction = Literal["up", "down", "left", "right"]


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Point(NamedTuple):
    """Pixels of the screenshot, origin top left."""

    x: int
    y: int


class Region(NamedTuple):
    """``x0 <= x < x1``, ``y0 <= y < y1`` in pixels of the screenshot."""

    x0: int
    y0: int
    x1: int
    y1: int


@dataclass(frozen=True)
class Screenshot:
    """An encoded image of the screen or a part of it: PNG unless the settings say otherwise."""

    data: bytes
    media_type: str
    width: int
    height: int
    encode_ms: float = 0.0

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the encoded bytes; screenshots are stored under it."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Settled:
    """How long an action waited for the screen to become quiet.

    ``quiet`` is false when the cap ended the wait. ``action_ms`` is the input itself.
    """

    waited_ms: float = 0.0
    quiet: bool = True
    action_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class VncEndpoint:
    """Where this desktop's RFB server listens: TCP on loopback, or a Unix socket; ``password`` for VncAuth."""

    host: str | None = None
    port: int | None = None
    unix_path: str | None = None
    password: str | None = None


class Desktop(ABC):
    """One live desktop, held by one session. What is not abstract is optional: its default does nothing harmful."""

    desktop_id: str
    """Stable across a server restart: the container's id, or the local desktop's directory name."""
    container_id: str | None = None
    vnc_port: int | None = None
    image_digest: str | None = None
    isolated: bool = False
    """Whether its programs cannot reach the host."""
    outlives_server: bool = False
    """Whether a later server process can adopt it."""
    recorded: bool = False
    """Whether this is a recording that is replayed: nothing runs, and nothing new is to be recorded."""

    @property
    @abstractmethod
    def size(self) -> Size:
        """Size of the screenshots, and the coordinate space of every action."""

    @property
    def true_size(self) -> Size:
        """Size of the X screen, which viewers see; screenshots of a large one are smaller."""
        return self.size

    @property
    def revision(self) -> object | None:
        """Equal to an earlier one only if nothing has been drawn since; ``None`` where that is not known."""
        return None

    # Screen
    @abstractmethod
    async def screenshot(self) -> Screenshot:
        """Return the settled screen, encoded. The cursor is in the image."""

    @abstractmethod
    async def zoom(self, region: Region) -> Screenshot:
        """Return ``region`` from true pixels, scaled to fit the screenshot size, aspect kept."""

    @abstractmethod
    async def thumbnail(self, width: int = 320) -> Screenshot:
        """Return a small JPEG of the screen as it is now; do not wait for it to settle."""

    @abstractmethod
    async def settle(self) -> Settled:
        """Wait until the screen is quiet, or the cap."""

    @abstractmethod
    async def cursor_position(self) -> Point:
        """Return where the pointer is, also after a person moved it."""

    @abstractmethod
    async def resize(self, size: Size) -> None: ...

    def limit_screenshots(self, long_edge: int, tokens: int, image_format: str | None = None) -> None:
        """Scale screenshots to what a model takes: ``long_edge`` pixels, ``tokens`` patches of 28 x 28 pixels."""
        return

    # Input: each returns when the screen has settled after it
    @abstractmethod
    async def move(self, point: Point) -> Settled: ...

    @abstractmethod
    async def click(
        self, button: Button = "left", point: Point | None = None, *, count: int = 1, modifiers: str | None = None
    ) -> Settled:
        """Click ``count`` times at ``point`` (else where the pointer is) with ``modifiers`` (``ctrl+shift``) held."""

    @abstractmethod
    async def button_down(self, button: Button = "left") -> Settled: ...

    @abstractmethod
    async def button_up(self, button: Button = "left") -> Settled: ...

    @abstractmethod
    async def drag(self, start: Point, end: Point, *, modifiers: str | None = None) -> Settled: ...

    @abstractmethod
    async def scroll(
        self, direction: Direction, amount: int, point: Point | None = None, *, modifiers: str | None = None
    ) -> Settled:
        """Turn the wheel by ``amount`` clicks, 1 to 50."""

    @abstractmethod
    async def key(self, combo: str, repeat: int = 1) -> Settled:
        """Press ``combo`` (``ctrl+s``, ``Return``) ``repeat`` times, 1 to 100."""

    @abstractmethod
    async def hold_key(self, combo: str, seconds: float) -> Settled:
        """Hold ``combo`` for 0 to 300 seconds."""

    @abstractmethod
    async def type_text(self, text: str) -> Settled:
        """Type any Unicode text at the focus; newlines are Return, tabs are Tab."""

    @abstractmethod
    async def release_all(self) -> None:
        """Release every key and button that this server holds; safe at any time."""

    async def sleep(self, seconds: float) -> None:
        """Wait, as an action of the agent: a replay need not take the time."""
        await asyncio.sleep(seconds)

    # Clipboard
    @abstractmethod
    async def get_clipboard(self) -> str: ...

    @abstractmethod
    async def set_clipboard(self, text: str) -> None: ...

    # Shell and files, inside the desktop's own container or user environment
    @abstractmethod
    async def run_command(self, command: str, timeout: float = 120.0) -> CommandResult:
        """Run in the session's one persistent bash; ``cd`` and variables stay. A time-out kills and restarts it."""

    @abstractmethod
    async def restart_shell(self) -> None: ...

    @abstractmethod
    async def execute(
        self, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 30.0, limit: int = 10_000_000
    ) -> tuple[int, bytes, bytes]:
        """Run one program (no shell state): exit code, stdout, stderr; output is cut at ``limit`` bytes."""

    @abstractmethod
    def read_file(self, path: str) -> FileContent:
        """Stream a file; relative paths are below home.

        The first piece raises :class:`~cambio_lab.errors.ActionError` if the file cannot be read.
        """

    @abstractmethod
    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        """Write a file below home, creating folders; return the bytes written."""

    @abstractmethod
    async def list_files(self, path: str = "") -> Listing: ...

    # Browser: the page behind the pixels, where the desktop has a Chromium
    @property
    def has_browser(self) -> bool:
        return False

    def limit_browser(self, hosts: Sequence[str] | None, members: frozenset[str]) -> None:
        """Let the browser open only ``hosts`` (``None``: any), and serve the optional ``members`` of its toolset."""
        return

    async def browse(self, member: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out a member of the browser toolset; returns ``text`` for the model or the member's ``data``.

        ``state`` returns the open ``tabs`` and what changed. :class:`~cambio_lab.errors.ActionError` says why not.
        """
        raise ActionError("This desktop has no browser to drive.")

    async def browser_screenshot(self, tab_id: str | None = None, region: Region | None = None) -> Screenshot:
        """Return a tab's viewport as PNG, or ``region`` of it scaled up."""
        raise ActionError("This desktop has no browser to drive.")

    # Life
    @abstractmethod
    def endpoint(self) -> VncEndpoint:
        """Return the address for the server's own VNC proxy; it never leaves the server."""

    @abstractmethod
    async def alive(self) -> bool: ...

    @abstractmethod
    async def lost(self) -> str:
        """Wait until this desktop dies by itself and return the reason; never returns after :meth:`close`."""

    async def release(self) -> None:
        """Close this server's connections to a desktop that goes on without it, for another attempt to adopt it."""
        return

    @abstractmethod
    async def close(self) -> None:
        """Remove the desktop and everything it holds; idempotent, bounded in time."""
