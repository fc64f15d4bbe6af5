"""What the agent asked of its desktop and what it got, call by call: enough to give it the same again.

A recorded call is one JSON object::

    {"step": 3, "method": "click", "arguments": {"point": [10, 20], "count": 1}, "at": 1700000000.0, "ms": 81.2,
     "result": {"settled": [80.1, true, 0.6]}}

``result`` has one key that names its kind; a failed call has ``error`` instead. Screenshots are stored by digest.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ..desktop.base import Point, Region, Screenshot, Settled, Size
from ..desktop.machine import CommandResult, FileInfo
from ..errors import ActionError, BundleRefused, DesktopError, DesktopLost, DesktopUnavailable

Json = dict[str, Any]
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


def restore_arguments(arguments: Json) -> Json:
    """The other way, for performing a recorded call on a desktop."""
    restored: Json = {}
    for name, value in arguments.items():
        if isinstance(value, dict) and set(value) == {"base64"}:
            restored[name] = base64.b64decode(value["base64"])
        elif isinstance(value, list) and len(value) == 2 and name in {"point", "start", "end"}:
            restored[name] = Point(*value)
        elif isinstance(value, list) and name == "region":
            restored[name] = Region(*value)
        elif isinstance(value, list) and name == "size":
            restored[name] = Size(*value)
        else:
            restored[name] = value
    return restored


def encode(result: Any) -> Json:
    """A method's result as JSON."""
    if result is None:
        return {"none": True}
    for kind, name, write in _KINDS:
        if isinstance(result, kind):
            return {name: write(result)}
    raise TypeError(f"cannot record a {type(result).__name__}")


def _screenshot(screenshot: Screenshot) -> Json:
    return {
        "sha256": screenshot.sha256,
        "media_type": screenshot.media_type,
        "width": screenshot.width,
        "height": screenshot.height,
        "encode_ms": round(screenshot.encode_ms, 3),
    }


def _bytes(data: bytes) -> str:
    return base64.b64encode(data).decode()


_KINDS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (Settled, "settled", lambda r: [round(r.waited_ms, 3), r.quiet, round(r.action_ms, 3)]),
    (Screenshot, "picture", _screenshot),
    (Point, "point", list),
    (CommandResult, "command", asdict),
    (bytes, "bytes", _bytes),
    (str, "text", str),
    (int, "number", int),
    (tuple, "process", lambda r: [r[0], _bytes(r[1]), _bytes(r[2])]),
    (dict, "browser", dict),
    (list, "files", lambda r: [asdict(item) for item in r]),
)


def encode_error(error: DesktopError) -> Json:
    kind = next((name for name, kind in ERRORS.items() if type(error) is kind), "DesktopError")
    return {"type": kind, "message": error.message, "hint": error.hint}


def decode_error(error: Json) -> DesktopError:
    return ERRORS.get(str(error.get("type")), DesktopError)(str(error.get("message")), hint=str(error.get("hint", "")))


def decode(result: Json, find: Callable[[str], bytes | None]) -> Any:
    """Return a recorded result; :class:`~cambio_lab.errors.BundleRefused` when its screenshot is missing or unknown."""
    name = next(iter(result), "")
    if name not in _DECODERS:
        raise BundleRefused(f"a recorded result has the unknown kind {name!r}")
    value = result[name]
    if name == "picture":
        data = find(value["sha256"])
        if data is None:
            raise BundleRefused(f"the screenshot {value['sha256'][:12]}… is missing")
        return Screenshot(data, value["media_type"], value["width"], value["height"], value.get("encode_ms", 0.0))
    return _DECODERS[name](value)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "none": lambda value: None,
    "settled": lambda value: Settled(*value),
    "picture": lambda value: value,
    "point": lambda value: Point(*value),
    "command": lambda value: CommandResult(**value),
    "bytes": base64.b64decode,
    "text": str,
    "number": int,
    "process": lambda value: (value[0], base64.b64decode(value[1]), base64.b64decode(value[2])),
    "browser": dict,
    "files": lambda value: [FileInfo(**item) for item in value],
}
