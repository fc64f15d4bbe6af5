"""What is asked of the desktops of a recorded session, call by call: enough to give the same again.

A recorded call is one JSON object; ``result`` has one key that names its kind, a failed call has ``error`` instead::

    {"step": 3, "method": "click", "arguments": {"point": [10, 20], "count": 1}, "at": 1700000000.0, "ms": 81.2,
     "result": {"settled": [80.1, true, 0.6]}}

The agent's desktop is recorded call by call. Of what clients do, only what a replay must return again is: the
clipboard, files up to :data:`MAX_FILE` bytes, and at most :data:`MAX_SCREENSHOTS` screenshots. Clients and the desktop
exchange the true bytes; the recording has the placeholders of a session's secrets in place of their values.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, replace
from types import NoneType
from typing import Any

from ..desktop import DelegatingDesktop
from ..desktop.base import Desktop, Point, Region, Screenshot, Settled, Size
from ..desktop.files import FileContent, FileInfo, Listing
from ..desktop.machine import CommandResult
from ..errors import ActionError, BundleRefused, DesktopError, DesktopLost, DesktopUnavailable
from . import Json
from .placeholders import Mask

ERRORS: dict[str, type[DesktopError]] = {
    kind.__name__: kind for kind in (ActionError, DesktopLost, DesktopUnavailable, DesktopError)
}
METHODS = frozenset(
    {
        *("screenshot", "zoom", "settle", "cursor_position", "move", "click", "button_down", "button_up", "drag"),
        *("scroll", "key", "hold_key", "type_text", "release_all", "get_clipboard", "set_clipboard", "run_command"),
        *("restart_shell", "execute", "read_file", "write_file", "list_files", "resize", "sleep"),
        *("browse", "browser_screenshot"),
    }
)
"""The calls that are recorded."""


def encode_arguments(arguments: Json) -> Json:
    """Return a call's named arguments as JSON."""
    return {name: _plain(value) for name, value in arguments.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


_PLACES: dict[str, Any] = {"point": Point, "start": Point, "end": Point, "region": Region, "size": Size}


def restore_arguments(arguments: Json) -> Json:
    """The other way, for performing a recorded call on a desktop."""
    restored = dict(arguments)
    for name, value in arguments.items():
        if isinstance(value, dict) and set(value) == {"base64"}:
            restored[name] = base64.b64decode(value["base64"])
        elif name in _PLACES and isinstance(value, list) and len(value) == len(_PLACES[name]._fields):
            restored[name] = _PLACES[name](*value)
    return restored


def _screenshot(screenshot: Screenshot) -> Json:
    facts = {name: getattr(screenshot, name) for name in ("sha256", "media_type", "width", "height")}
    return {**facts, "encode_ms": round(screenshot.encode_ms, 3)}


def _bytes(data: bytes) -> str:
    return base64.b64encode(data).decode()


# type, name, as JSON, back again; the first type that fits counts
_KINDS: tuple[tuple[type, str, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    (NoneType, "none", lambda r: True, lambda v: None),
    (Settled, "settled", lambda r: [round(r.waited_ms, 3), r.quiet, round(r.action_ms, 3)], lambda v: Settled(*v)),
    (Screenshot, "picture", _screenshot, dict),
    (Point, "point", list, lambda v: Point(*v)),
    (CommandResult, "command", asdict, lambda v: CommandResult(**v)),
    (bytes, "bytes", _bytes, base64.b64decode),
    (str, "text", str, str),
    (int, "number", int, int),
    (tuple, "process", lambda r: [r[0], *map(_bytes, r[1:])], lambda v: (v[0], *map(base64.b64decode, v[1:]))),
    (dict, "browser", dict, dict),
    (list, "files", lambda r: [asdict(item) for item in r], lambda v: [FileInfo(**item) for item in v]),
)
_DECODERS = {name: back for _, name, _, back in _KINDS}


def encode(result: Any) -> Json:
    """A method's result as JSON."""
    for kind, name, write, _ in _KINDS:
        if isinstance(result, kind):
            return {name: write(result)}
    raise TypeError(f"cannot record a {type(result).__name__}")


def decode(result: Json, find: Callable[[str], bytes | None]) -> Any:
    """Return a recorded result; :class:`~cambio_lab.errors.BundleRefused` when its screenshot is missing or unknown."""
    name = next(iter(result), "")
    if name not in _DECODERS:
        raise BundleRefused(f"a recorded result has the unknown kind {name!r}")
    value = _DECODERS[name](result[name])
    if name != "picture":
        return value
    data = find(value["sha256"])
    if data is None:
        raise BundleRefused(f"the screenshot {value['sha256'][:12]}… is missing")
    return Screenshot(data, value["media_type"], value["width"], value["height"], value.get("encode_ms", 0.0))


def encode_error(error: DesktopError) -> Json:
    kind = type(error).__name__
    return {"type": kind if kind in ERRORS else "DesktopError", "message": error.message, "hint": error.hint}


def decode_error(error: Json) -> DesktopError:
    return ERRORS.get(str(error.get("type")), DesktopError)(str(error.get("message")), hint=str(error.get("hint", "")))


MAX_FILE = 1_000_000
MAX_SCREENSHOTS = 1_000
CLIENT, HUMAN = "client", "human"
Note = Callable[[Json], Awaitable[None]]
Keep = Callable[[Screenshot], Awaitable[None]]


class RecordingDesktop(DelegatingDesktop):
    """The agent's: tells ``note`` of each call with its arguments, result and time."""

    def __init__(self, inner: Desktop, note: Note, count: Callable[[], int]) -> None:
        super().__init__(inner)
        self._note = note
        self._count = count

    async def call(self, method: str, **arguments: Any) -> Any:
        async with self._noted(method, arguments) as outcome:
            result = await super().call(method, **arguments)
            outcome["result"] = encode(result)
        return result

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(path))

    async def _read(self, path: str) -> AsyncGenerator[bytes, None]:
        async with self._noted("read_file", {"path": path}) as outcome:
            chunks = []
            async for chunk in self.inner.read_file(path):
                chunks.append(chunk)
                yield chunk
            outcome["result"] = encode(b"".join(chunks))

    @asynccontextmanager
    async def _noted(self, method: str, arguments: Json) -> AsyncIterator[Json]:
        """Tell of a call, which puts its ``result`` into what this yields, or of the error that ended it.

        ``at`` is for people; the wall clock may be set back, so calls are ordered by ``number``.
        """
        about = {"method": method, "arguments": encode_arguments(arguments), "at": time.time(), "number": self._count()}
        began, outcome = time.perf_counter(), dict[str, Any]()
        try:
            yield outcome
        except BaseException as error:
            kind = "Unexpected" if isinstance(error, Exception) else "Cancelled"
            told = encode_error(error) if isinstance(error, DesktopError) else {"type": kind, "message": "", "hint": ""}
            outcome = {"error": told}
            raise
        finally:
            await self._note({**about, "ms": round((time.perf_counter() - began) * 1000, 3), **outcome})


class ClientDesktop(DelegatingDesktop):
    """What clients do through it is told to ``note``, screenshots to ``keep``. ``mask`` knows the session's secrets."""

    def __init__(self, inner: Desktop, note: Note, keep: Keep, count: Callable[[], int], mask: Mask) -> None:
        super().__init__(inner)
        self._mask = mask
        self._note = note
        self._keep = keep
        self._count = count
        self._screenshots_left = MAX_SCREENSHOTS

    async def screenshot(self) -> Screenshot:
        screenshot = await self.inner.screenshot()
        if self._screenshots_left:
            self._screenshots_left -= 1
            await self._keep(screenshot)
            await self._tell("screenshot", {}, encode(screenshot))
        return screenshot

    async def get_clipboard(self) -> str:
        text = await self.inner.get_clipboard()
        await self._tell("get_clipboard", {}, {"text": self._mask.text(text)})
        return text

    async def set_clipboard(self, text: str) -> None:
        await self.inner.set_clipboard(text)
        await self._tell("set_clipboard", {"text": self._mask.text(text)}, {"none": True})

    async def list_files(self, path: str = "") -> Listing:
        found = await self.inner.list_files(path)
        masked = (replace(entry, path=self._mask.text(entry.path)) for entry in found)
        noted = await asyncio.to_thread(lambda: encode(list(masked)))
        await self._tell("list_files", {"path": self._mask.text(path)}, noted)
        return found

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        # Of the masked bytes: the digest of a short secret alone would let it be guessed.
        digest, masked = hashlib.sha256(), self._mask.stream()

        async def passing() -> AsyncIterator[bytes]:
            if isinstance(chunks, bytes):
                digest.update(masked.feed(chunks))
                yield chunks
                return
            async for chunk in chunks:
                digest.update(masked.feed(chunk))
                yield chunk

        size = await self.inner.write_file(path, passing())
        digest.update(masked.end())
        await self._tell("write_file", {"path": self._mask.text(path), "content": digest.hexdigest()}, {"number": size})
        return size

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(content, path))

    async def _read(self, content: FileContent, path: str) -> AsyncGenerator[bytes, None]:
        kept: bytearray | None = bytearray()
        async with aclosing(self.inner.read_file(path)) as source:
            async for chunk in source:
                content.size = source.size
                if kept is not None:
                    kept += chunk
                    if len(kept) > MAX_FILE:
                        kept = None
                yield chunk
        if kept is not None:
            masked = base64.b64encode(self._mask.data(bytes(kept))).decode()
            await self._tell("read_file", {"path": self._mask.text(path)}, {"bytes": masked})

    async def _tell(self, method: str, arguments: Json, result: Json) -> None:
        record = {"by": CLIENT, "method": method, "arguments": arguments, "at": time.time(), "ms": 0.0}
        await self._note({**record, "number": self._count(), "result": result})
