"""Where a desktop's programs run: a container or a user environment of this machine; single programs, and the shell.

One primitive, :meth:`Machine.spawn`; shell, files and single programs are all built on it. The shell is one persistent
bash: ``cd``, variables and background jobs stay from command to command. It runs under
:mod:`cambio_lab.desktop.shell_helper` inside the desktop. What comes back is hostile: a program of the desktop's user
can write to the helper's output. It is therefore typed and bounded, and damage costs the shell alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from cambio_lab.errors import ActionError, DesktopLost

STDOUT, STDERR = 1, 2


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a shell command left.

    ``exit_code`` is ``None`` after a time-out. ``truncated`` says that output was dropped, ``shell_ended`` that the
    command ended the shell itself (``exit``, ``exec``, a signal): the next command gets a new one.
    """

    stdout: str
    stderr: str
    exit_code: int | None
    timed_out: bool = False
    truncated: bool = False
    shell_ended: bool = False


class Process(Protocol):
    """One running program with its three streams."""

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the program does not read. ``OSError`` when it is gone."""

    async def close_stdin(self) -> None: ...

    async def read(self) -> tuple[int, bytes] | None:
        """Return the next piece of output (1 or 2 says of which stream), ``None`` at the end of both."""

    async def wait(self) -> int:
        """Return the exit code, after the end of the output; negative for a signal."""

    async def kill(self, spare: Sequence[int] = ()) -> None:
        """Kill the program's whole session except the process groups in ``spare``."""

    def abandon(self) -> None:
        """Close the streams without waiting."""


MOST_HELPERS = 8


class Machine(ABC):
    """Starts programs as the desktop's own user, with its own home and display.

    Absolute paths of files may lie in ``roots``.
    """

    def __init__(self, home: str, roots: Sequence[str], python: str) -> None:
        self.home, self.roots, self.python = home, roots, python
        self.managed = asyncio.Event()
        """Set once the window manager has the screen. Until then no program starts: it would not get the focus."""
        self.helpers = asyncio.Semaphore(MOST_HELPERS)
        """Held by each call of the file helper."""
        self.keyed = asyncio.Event()
        """Set once the X server has its keymap. Until then nothing is typed."""
        self.managed.set()
        self.keyed.set()

    @abstractmethod
    async def spawn(self, argv: Sequence[str]) -> Process:
        """Start ``argv``. :class:`~cambio_lab.errors.DesktopLost` when the machine is gone."""


@cache
def helper_source(name: str) -> str:
    """Return a script of this package that runs inside the desktop."""
    return Path(__file__).with_name(name).read_text("utf-8")


async def run(
    machine: Machine, argv: Sequence[str], *, stdin: bytes | None = None, timeout: float = 30.0, limit: int = 10_000_000
) -> tuple[int, bytes, bytes]:
    """Run one program: exit code, stdout and stderr, each cut at ``limit`` bytes. May raise ``TimeoutError``."""
    process = await machine.spawn(argv)
    output = {STDOUT: bytearray(), STDERR: bytearray()}
    try:
        async with asyncio.timeout(timeout):
            feeding = asyncio.create_task(_feed(process, stdin or b""))
            try:
                while (piece := await process.read()) is not None:
                    kept = output[piece[0]]
                    kept += piece[1][: max(0, limit - len(kept))]
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])
            code = await process.wait()
    except BaseException:
        # Also when cancelled: a program without a reader must not run on.
        with suppress(Exception):
            await asyncio.shield(asyncio.wait_for(process.kill(), 5))
        raise
    finally:
        process.abandon()
    return code, bytes(output[STDOUT]), bytes(output[STDERR])


async def _feed(process: Process, data: bytes) -> None:
    # A program need not read what it is given.
    with suppress(OSError):
        for start in range(0, len(data), 65536):
            await process.write(data[start : start + 65536])
        await process.close_stdin()


log = logging.getLogger(__name__)
_KILL_TIMEOUT = 5.0
_MAX_FRAME = 1 << 19
_MAX_COMMAND = 8 * 1024 * 1024
_MAX_OUTPUT = 1_000_000
"""Bytes that are kept of each stream of a command."""


class _Damaged(Exception):
    """The helper's output is not what the helper sends."""


class Shell:
    """Runs commands one after the other."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._process: Process | None = None
        self._buffer = bytearray()
        self._lock = asyncio.Lock()

    async def run(self, command: str, timeout: float) -> CommandResult:
        """Run ``command`` as bash would run it as the next lines of a script.

        After ``timeout`` seconds the command is killed and the next one gets a new shell; what earlier commands put in
        the background stays. Raises :class:`~cambio_lab.errors.ActionError` for a command that bash cannot be given,
        and when the shell had ended before the command could run.
        """
        data = command.encode("utf-8", "replace")
        if b"\0" in data:
            raise ActionError("The command has a null character.", hint="Let printf make it.")
        if len(data) > _MAX_COMMAND:
            raise ActionError(f"The command has {len(data)} bytes; at most {_MAX_COMMAND} can be run.")
        async with self._lock:
            process = await self._started()
            output = {b"o": bytearray(), b"e": bytearray()}
            try:
                async with asyncio.timeout(timeout):
                    return await self._converse(process, data, output)
            except TimeoutError:
                await self._kill()
                return _result(output, None, timed_out=True)
            except BaseException:
                await asyncio.shield(self._kill())
                raise

    async def restart(self) -> None:
        """End the shell and all that still runs in its foreground; the next command gets a new one."""
        async with self._lock:
            await self._kill()

    async def close(self) -> None:
        """Release the shell without waiting for it; its machine is about to go."""
        process, self._process = self._process, None
        self._buffer.clear()
        if process is not None:
            process.abandon()

    async def _started(self) -> Process:
        if self._process is None:
            argv = [self._machine.python, "-I", "-S", "-c", helper_source("shell_helper.py"), str(_MAX_OUTPUT)]
            self._process = await self._machine.spawn(argv)
        return self._process

    async def _converse(self, process: Process, command: bytes, output: dict[bytes, bytearray]) -> CommandResult:
        """Send the command and collect its output until the helper says that it is done or that bash ended."""
        with suppress(OSError):  # the helper's last frame says why it left
            await process.write(b"r" + len(command).to_bytes(4, "big") + command)
        try:
            while (frame := await self._frame(process)) is not None:
                kind, payload = frame
                if kind in output:
                    output[kind] += payload
                    if len(output[kind]) > _MAX_OUTPUT + _MAX_FRAME:  # more than the helper was told to send
                        raise _Damaged(f"more than {_MAX_OUTPUT} bytes of output")
                    continue
                fields = _fields(payload)
                ended = kind != b"d"
                if ended:
                    await self.close()
                if ended and not fields["ran"]:
                    raise ActionError("The shell had ended, so the command did not run; the shell is new now.")
                return _result(output, fields["code"], truncated=fields["dropped"] > 0, shell_ended=ended)
        except _Damaged as error:
            log.warning("shell output damaged; shell killed: %s", error)
            raise ActionError("The shell's output was damaged by another program; the shell is new now.") from error
        await self.close()
        raise ActionError("The shell was killed. It is not known how much of the command ran; the shell is new now.")

    async def _frame(self, process: Process) -> tuple[bytes, bytes] | None:
        """Kind and payload of the helper's next frame; ``None`` when it has gone."""
        while True:
            if len(self._buffer) >= 5:
                length = int.from_bytes(self._buffer[1:5], "big")
                kind = bytes(self._buffer[:1])
                if kind not in (b"o", b"e", b"d", b"x") or length > _MAX_FRAME:
                    raise _Damaged(f"frame {kind!r} of {length} bytes")
                if len(self._buffer) >= 5 + length:
                    payload = bytes(self._buffer[5 : 5 + length])
                    del self._buffer[: 5 + length]
                    return kind, payload
            piece = await process.read()
            if piece is None:
                return None
            if piece[0] == STDOUT:  # the helper itself writes nothing to its standard error
                self._buffer += piece[1]

    async def _kill(self) -> None:
        process = self._process
        try:
            if process is not None:
                async with asyncio.timeout(_KILL_TIMEOUT):
                    await self._ask_to_kill(process)
        except (DesktopLost, TimeoutError) as error:
            log.info("the shell's programs could not be ended: %s", error or "the machine does not answer")
        finally:
            await self.close()

    async def _ask_to_kill(self, process: Process) -> None:
        """Let the helper kill what the command started; kill the helper's whole session if it does not answer."""
        try:
            async with asyncio.timeout(_KILL_TIMEOUT / 2):
                await process.write(b"k\0\0\0\0")
                while (frame := await self._frame(process)) is not None and frame[0] != b"x":
                    pass
        except (TimeoutError, OSError, _Damaged):
            await process.kill()


def _result(output: dict[bytes, bytearray], code: int | None, **how: bool) -> CommandResult:
    stdout, stderr = (bytes(part[:_MAX_OUTPUT]).decode("utf-8", "replace") for part in output.values())
    return CommandResult(stdout, stderr, code, **how)


def _fields(payload: bytes) -> dict[str, int]:
    """The fields of a closing frame, each a whole number or a truth value."""
    try:
        found = json.loads(payload)
        return {name: int(found.get(name, 0)) for name in ("code", "dropped", "ran")}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        raise _Damaged("closing frame without its fields") from None
