"""One persistent bash: ``cd``, variables and background jobs stay from command to command.

Bash runs under :mod:`cambio_lab.desktop.shell_helper` inside the desktop. What comes back is hostile: a program of the
desktop's user can write to the helper's output. It is therefore typed and bounded, and damage costs the shell alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import NamedTuple

from cambio_lab.errors import ActionError, DesktopLost

from .machine import STDOUT, CommandResult, Machine, Process, helper_source

log = logging.getLogger(__name__)
_KILL_TIMEOUT = 5.0
_MAX_FRAME = 1 << 19
_MAX_COMMAND = 8 * 1024 * 1024
_MAX_OUTPUT = 1_000_000
"""Bytes that are kept of each stream of a command."""
_STREAMS = {b"o": 0, b"e": 1}


class _Frame(NamedTuple):
    kind: bytes
    payload: bytes


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
            output = _Output()
            try:
                async with asyncio.timeout(timeout):
                    return await self._converse(process, data, output)
            except TimeoutError:
                await self._kill()
                return output.result(None, timed_out=True)
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

    async def _converse(self, process: Process, command: bytes, output: _Output) -> CommandResult:
        """Send the command and collect its output until the helper says that it is done or that bash ended."""
        with suppress(OSError):  # the helper's last frame says why it left
            await process.write(b"r" + len(command).to_bytes(4, "big") + command)
        try:
            while (frame := await self._frame(process)) is not None:
                if frame.kind in _STREAMS:
                    output.add(frame)
                    continue
                fields = _fields(frame)
                if frame.kind == b"d":
                    return output.result(fields["code"], truncated=fields["dropped"] > 0)
                await self.close()
                if not fields["ran"]:
                    raise ActionError("The shell had ended, so the command did not run; the shell is new now.")
                return output.result(fields["code"], truncated=fields["dropped"] > 0, shell_ended=True)
        except _Damaged as error:
            log.warning("shell output damaged; shell killed: %s", error)
            raise ActionError("The shell's output was damaged by another program; the shell is new now.") from error
        await self.close()
        raise ActionError(
            "The shell was killed. It is not known how much of the command ran; the shell is new now.",
        )

    async def _frame(self, process: Process) -> _Frame | None:
        """The helper's next frame; ``None`` when it has gone."""
        while True:
            if len(self._buffer) >= 5:
                length = int.from_bytes(self._buffer[1:5], "big")
                kind = bytes(self._buffer[:1])
                if kind not in (b"o", b"e", b"d", b"x") or length > _MAX_FRAME:
                    raise _Damaged(f"frame {kind!r} of {length} bytes")
                if len(self._buffer) >= 5 + length:
                    payload = bytes(self._buffer[5 : 5 + length])
                    del self._buffer[: 5 + length]
                    return _Frame(kind, payload)
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
                while (frame := await self._frame(process)) is not None and frame.kind != b"x":
                    pass
        except (TimeoutError, OSError, _Damaged):
            await process.kill()


class _Output:
    """What one command printed; a helper that sends more than it was told to is not the helper."""

    def __init__(self) -> None:
        self._parts = (bytearray(), bytearray())

    def add(self, frame: _Frame) -> None:
        part = self._parts[_STREAMS[frame.kind]]
        part += frame.payload
        if len(part) > _MAX_OUTPUT + _MAX_FRAME:
            raise _Damaged(f"more than {_MAX_OUTPUT} bytes of output")

    def result(
        self, code: int | None, *, timed_out: bool = False, truncated: bool = False, shell_ended: bool = False
    ) -> CommandResult:
        stdout, stderr = (bytes(part[:_MAX_OUTPUT]).decode("utf-8", "replace") for part in self._parts)
        return CommandResult(stdout, stderr, code, timed_out, truncated, shell_ended)


def _fields(frame: _Frame) -> dict[str, int]:
    """The fields of a closing frame, each a whole number or a truth value."""
    try:
        found = json.loads(frame.payload)
        return {name: int(found.get(name, 0)) for name in ("code", "dropped", "ran")}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        raise _Damaged("closing frame without its fields") from None
