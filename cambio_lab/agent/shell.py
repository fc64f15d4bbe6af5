"""Tools that are called by a name of their own, and the two that work on the desktop's files: shell and editor."""

from __future__ import annotations

import codecs
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ..desktop.base import Desktop
from ..desktop.machine import CommandResult
from ..errors import ActionError
from ..events import Timing
from .tools import EDITOR, SHELL, Call, Outcome, failed, text_argument

MOST_BYTES = 2_000_000
CONTEXT_LINES = 4
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LINE_END = (re.compile("\r?\n"), re.compile("\r"))


class NamedTool:
    """All the time that a call takes is its action's."""

    def __init__(self, *definitions: dict[str, Any]) -> None:
        self.definitions = list(definitions)

    def serves(self, call: Call) -> bool:
        return call.toolset is None and any(entry["name"] == call.name for entry in self.definitions)

    def member(self, call: Call) -> str:
        return call.name

    async def run(self, call: Call) -> Outcome:
        started = time.perf_counter()
        try:
            outcome = await self.carry_out(call)
        except ActionError as error:
            outcome = failed(error.message)
        total = (time.perf_counter() - started) * 1000
        outcome.timing = Timing(action=total, total=total)
        return outcome

    async def carry_out(self, call: Call) -> Outcome:
        """Run one call; an :class:`ActionError` is for the model to read."""
        raise NotImplementedError


class BashTool(NamedTool):
    """``bash_20250124``: the session's one persistent shell, inside the desktop's own environment.

    ``timeout`` is seconds for one command, ``limit`` characters of output that the model sees.
    """

    def __init__(self, desktop: Desktop, *, timeout: float, limit: int) -> None:
        super().__init__({"type": "bash_20250124", "name": SHELL})
        self._desktop = desktop
        self._timeout = timeout
        self._limit = limit

    def time_limit(self, call: Call) -> float:
        return self._timeout + 30.0  # the desktop's own limit comes first, and restarts the shell

    async def carry_out(self, call: Call) -> Outcome:
        command, restart = call.arguments.get("command"), call.arguments.get("restart")
        if restart is True:
            await self._desktop.restart_shell()
            return Outcome(text="The shell was restarted.", changed=True)
        if not isinstance(command, str) or not command.strip():
            return failed("Give a command, or restart: true.")
        result = await self._desktop.run_command(command, self._timeout)
        return Outcome(text=self._words(result), is_error=result.timed_out, changed=True)

    def _words(self, result: CommandResult) -> str:
        parts = []
        if result.stdout:
            parts.append(cut(result.stdout, self._limit))
        if result.stderr:
            parts.append("stderr:\n" + cut(result.stderr, max(self._limit // 4, 1000)))
        if result.truncated:
            parts.append("(The output was longer than what is kept; the middle or end is missing.)")
        if result.timed_out:
            parts.append(
                f"The command ran longer than {self._timeout:g} seconds and was killed; the shell is a new one now."
            )
        elif result.exit_code:
            parts.append(f"(exit code {result.exit_code})")
        if result.shell_ended:
            parts.append("(The command ended the shell; the next command gets a new shell.)")
        return "\n".join(parts) or "(no output)"


class EditorTool(NamedTool):
    """``limit`` is how many characters of a file the model sees at once."""

    def __init__(self, desktop: Desktop, *, limit: int) -> None:
        super().__init__({"type": "text_editor_20250728", "name": EDITOR, "max_characters": limit})
        self._desktop = desktop
        self._limit = limit
        self._commands: dict[str, Callable[[dict[str, Any]], Awaitable[str]]] = {
            "view": self._view,
            "create": self._create,
            "str_replace": self._replace,
            "insert": self._insert,
        }

    def time_limit(self, call: Call) -> float:
        return 60.0

    async def carry_out(self, call: Call) -> Outcome:
        command = self._commands.get(text_argument(call.arguments, "command"))
        if command is None:
            return failed(f"command must be one of {', '.join(self._commands)}.")
        if not text_argument(call.arguments, "path"):
            return failed("Give a path.")
        return Outcome(text=await command({**call.arguments, "path": _home(call.arguments["path"])}))

    async def _view(self, arguments: dict[str, Any]) -> str:
        path = arguments["path"]
        code, _, _ = await self._desktop.execute(["test", "-d", path])
        if code == 0:
            return await self._listing(path)
        lines = (await self._read(path)).text.split("\n")
        first, last = _view_range(arguments.get("view_range"), len(lines))
        return cut(_numbered(lines[first - 1 : last], first), self._limit)

    async def _listing(self, path: str) -> str:
        code, out, _ = await self._desktop.execute(
            ["find", path, "-maxdepth", "2", "-not", "-path", "*/.*", "-printf", "%y %s %p\n"], limit=200_000
        )
        if code != 0 and not out:
            raise ActionError(f"{path} cannot be listed.")
        return cut("\n".join(sorted(out.decode("utf-8", "replace").splitlines())), self._limit)

    async def _create(self, arguments: dict[str, Any]) -> str:
        text = arguments.get("file_text")
        if not isinstance(text, str):
            raise ActionError("file_text must be a string.")
        written = await self._desktop.write_file(arguments["path"], text.encode("utf-8", "replace"))
        return f"Wrote {written} bytes to {arguments['path']}."

    async def _replace(self, arguments: dict[str, Any]) -> str:
        path, old, new = arguments["path"], arguments.get("old_str"), arguments.get("new_str", "")
        if not isinstance(old, str) or not old or not isinstance(new, str):
            raise ActionError("old_str must be a string that is not empty, new_str a string.")
        document = await self._read(path)
        old = _unix(old)
        count = document.text.count(old)
        if count != 1:
            found = "does not occur" if count == 0 else f"occurs {count} times"
            raise ActionError(f"old_str {found} in {path}; it must occur exactly once.")
        at = document.text.index(old)
        changed = document.replace(at, at + len(old), _unix(new))
        await self._write(path, changed)
        return self._edited(path, changed.text, changed.text.count("\n", 0, at) + 1, new.count("\n") + 1)

    async def _insert(self, arguments: dict[str, Any]) -> str:
        path, new, line = arguments["path"], arguments.get("insert_text"), arguments.get("insert_line")
        if not isinstance(new, str):
            raise ActionError("insert_text must be a string.")
        document = await self._read(path)
        lines = document.text.split("\n")
        if not isinstance(line, int) or isinstance(line, bool) or not 0 <= line <= len(lines):
            raise ActionError(f"insert_line must be a line number from 0 to {len(lines)}.")
        inserted = _unix(new).removesuffix("\n")
        at = sum(len(text) + 1 for text in lines[:line])
        if line < len(lines):
            changed = document.replace(at, at, inserted + "\n")
        else:
            changed = document.replace(at - 1, at - 1, "\n" + inserted)
        await self._write(path, changed)
        return self._edited(path, changed.text, line + 1, inserted.count("\n") + 1)

    def _edited(self, path: str, text: str, line: int, count: int) -> str:
        lines = text.split("\n")
        first = max(1, line - CONTEXT_LINES)
        window = _numbered(lines[first - 1 : line + count + CONTEXT_LINES - 1], first)
        return cut(f"Edited {path}. It now reads:\n{window}", self._limit)

    async def _read(self, path: str) -> Document:
        data = bytearray()
        async with aclosing(self._desktop.read_file(path)) as content:
            async for chunk in content:
                data += chunk
                if len(data) > MOST_BYTES:
                    raise ActionError(f"{path} is larger than {MOST_BYTES} bytes; use the shell.")
        return Document.decode(bytes(data), path)

    async def _write(self, path: str, document: Document) -> None:
        await self._desktop.write_file(path, document.encode(path))


@dataclass(frozen=True, slots=True)
class Document:
    """A text file with the encoding, byte order mark and line ends that it has; edits keep all three."""

    raw: str
    """The text with its own line ends."""
    encoding: str
    mark: bytes

    @classmethod
    def decode(cls, data: bytes, path: str) -> Document:
        """Read UTF-8, and UTF-16 or UTF-32 with a byte order mark; :class:`ActionError` for anything else."""
        known = (pair for pair in BYTE_ORDER_MARKS if data.startswith(pair[0]))
        mark, encoding = next(known, (b"", "utf-8"))
        try:
            return cls(data[len(mark) :].decode(encoding), encoding, mark)
        except UnicodeDecodeError:
            raise ActionError(f"{path} is not text in UTF-8, UTF-16 or UTF-32; use the shell.") from None

    def encode(self, path: str) -> bytes:
        try:
            return self.mark + self.raw.encode(self.encoding)
        except UnicodeEncodeError:
            raise ActionError(f"The text for {path} has half a character (a lone surrogate).") from None

    @property
    def text(self) -> str:
        """The text with ``\\n`` for every line end, as the model reads and writes it."""
        return LINE_END[self._carriage_returns].sub("\n", self.raw)

    @property
    def line_end(self) -> str:
        """The line end that the file uses most; ``\\n`` in a file of one line."""
        ends = Counter(LINE_END[self._carriage_returns].findall(self.raw))
        return ends.most_common(1)[0][0] if ends else "\n"

    def replace(self, start: int, end: int, new: str) -> Document:
        """Return the document with ``text[start:end]`` replaced; other lines keep their ends."""
        begin, stop = self._offset(start), self._offset(end)
        return replace(self, raw=self.raw[:begin] + new.replace("\n", self.line_end) + self.raw[stop:])

    @property
    def _carriage_returns(self) -> bool:
        """Whether a lone carriage return ends a line, as in files of old Macs; elsewhere it is a character."""
        return "\n" not in self.raw

    def _offset(self, position: int) -> int:
        """Return the place in ``raw`` of a place in ``text``."""
        shift = 0
        for found in LINE_END[self._carriage_returns].finditer(self.raw):
            if found.start() - shift >= position:
                break
            shift += len(found[0]) - 1
        return position + shift


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def _home(path: str) -> str:
    """``~`` is the desktop's home, which relative paths begin in; so is ``$HOME``, as in a shell."""
    first, _, rest = path.partition("/")
    return (rest.lstrip("/") or ".") if first in ("~", "$HOME", "${HOME}") else path


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


def cut(text: str, limit: int) -> str:
    """``text`` within ``limit`` characters, the middle left out: the ends of an output matter most."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[len(text) - tail :]}"
