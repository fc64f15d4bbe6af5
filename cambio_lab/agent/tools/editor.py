"""``text_editor_20250728``: view, create, str_replace and insert on files inside the desktop's environment."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from ...desktop.base import Desktop
from ...errors import ActionError
from ...events import Timing
from ..gate import EDITOR
from .bash import cut
from .call import Call, Outcome, failed, spoken

MOST_BYTES = 2_000_000
CONTEXT_LINES = 4


class EditorTool:
    """``limit`` is how many characters of a file the model sees at once."""

    def __init__(self, desktop: Callable[[], Desktop], *, limit: int) -> None:
        self._desktop = desktop
        self._limit = limit
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[str]]] = {
            "view": self._view,
            "create": self._create,
            "str_replace": self._replace,
            "insert": self._insert,
        }

    def definitions(self) -> list[dict[str, Any]]:
        return [{"type": "text_editor_20250728", "name": EDITOR, "max_characters": self._limit}]

    def serves(self, call: Call) -> bool:
        return call.toolset is None and call.name == EDITOR

    def member(self, call: Call) -> str:
        return EDITOR

    def time_limit(self, call: Call) -> float:
        return 60.0

    async def run(self, call: Call) -> Outcome:
        started = time.perf_counter()
        command = self._commands.get(spoken(call.arguments, "command"))
        try:
            if command is None:
                outcome = failed(f"command must be one of {', '.join(self._commands)}.")
            elif not spoken(call.arguments, "path"):
                outcome = failed("Give a path.")
            else:
                outcome = Outcome(text=await command(call.arguments))
        except ActionError as error:
            outcome = failed(error.message)
        total = (time.perf_counter() - started) * 1000
        outcome.timing = Timing(action=total, total=total)
        return outcome

    async def _view(self, arguments: dict[str, Any]) -> str:
        path = arguments["path"]
        code, _, _ = await self._desktop().execute(["test", "-d", path])
        if code == 0:
            return await self._listing(path)
        lines = (await self._read(path)).split("\n")
        first, last = _view_range(arguments.get("view_range"), len(lines))
        return cut(_numbered(lines[first - 1 : last], first), self._limit)

    async def _listing(self, path: str) -> str:
        code, out, _ = await self._desktop().execute(
            ["find", path, "-maxdepth", "2", "-not", "-path", "*/.*", "-printf", "%y %s %p\n"], limit=200_000
        )
        if code != 0 and not out:
            raise ActionError(f"{path} cannot be listed.")
        return cut("\n".join(sorted(out.decode("utf-8", "replace").splitlines())), self._limit)

    async def _create(self, arguments: dict[str, Any]) -> str:
        text = arguments.get("file_text")
        if not isinstance(text, str):
            raise ActionError("file_text must be a string.")
        written = await self._desktop().write_file(arguments["path"], text.encode("utf-8", "replace"))
        return f"Wrote {written} bytes to {arguments['path']}."

    async def _replace(self, arguments: dict[str, Any]) -> str:
        path, old, new = arguments["path"], arguments.get("old_str"), arguments.get("new_str", "")
        if not isinstance(old, str) or not old or not isinstance(new, str):
            raise ActionError("old_str must be a string that is not empty, new_str a string.")
        text = await self._read(path)
        count = text.count(old)
        if count != 1:
            found = "does not occur" if count == 0 else f"occurs {count} times"
            raise ActionError(f"old_str {found} in {path}; it must occur exactly once.")
        at = text.index(old)
        changed = text[:at] + new + text[at + len(old) :]
        await self._write(path, changed)
        return self._edited(path, changed, changed.count("\n", 0, at) + 1, new.count("\n") + 1)

    async def _insert(self, arguments: dict[str, Any]) -> str:
        path, new, line = arguments["path"], arguments.get("insert_text"), arguments.get("insert_line")
        if not isinstance(new, str):
            raise ActionError("insert_text must be a string.")
        lines = (await self._read(path)).split("\n")
        if not isinstance(line, int) or isinstance(line, bool) or not 0 <= line <= len(lines):
            raise ActionError(f"insert_line must be a line number from 0 to {len(lines)}.")
        inserted = new.removesuffix("\n").split("\n")
        changed = "\n".join(lines[:line] + inserted + lines[line:])
        await self._write(path, changed)
        return self._edited(path, changed, line + 1, len(inserted))

    def _edited(self, path: str, text: str, line: int, count: int) -> str:
        lines = text.split("\n")
        first = max(1, line - CONTEXT_LINES)
        window = _numbered(lines[first - 1 : line + count + CONTEXT_LINES - 1], first)
        return cut(f"Edited {path}. It now reads:\n{window}", self._limit)

    async def _read(self, path: str) -> str:
        data = bytearray()
        async for chunk in await _opened(self._desktop(), path):
            data += chunk
            if len(data) > MOST_BYTES:
                raise ActionError(f"{path} is larger than {MOST_BYTES} bytes; use the shell.")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise ActionError(f"{path} is not UTF-8 text; use the shell.") from None

    async def _write(self, path: str, text: str) -> None:
        await self._desktop().write_file(path, text.encode("utf-8", "replace"))


async def _opened(desktop: Desktop, path: str) -> Any:
    """``read_file`` as an async iterator, whether the desktop made it a coroutine or a generator."""
    stream: Any = desktop.read_file(path)
    return stream if hasattr(stream, "__aiter__") else await stream


def _numbered(lines: list[str], first: int) -> str:
    return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(lines, first))


def _view_range(value: object, count: int) -> tuple[int, int]:
    if value is None:
        return 1, count
    if not isinstance(value, list) or len(value) != 2 or any(not isinstance(n, int) for n in value):
        raise ActionError("view_range must be [first, last] in line numbers; last may be -1.")
    first, last = value
    last = count if last == -1 else last
    if not 1 <= first <= count or last < first:
        raise ActionError(f"view_range must lie within lines 1 to {count}.")
    return first, min(last, count)
