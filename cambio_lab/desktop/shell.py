"""One persistent bash: ``cd``, variables and background jobs stay from command to command."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shlex

from cambio_lab.errors import ActionError, DesktopLost

from .base import CommandResult
from .machine import STDERR, STDOUT, Machine, Process

log = logging.getLogger(__name__)

# Job control gives each job its own process group, so that a time-out can end the running command and spare what was
# put in the background before (a browser, say).
# The trap tells that a command ended the shell itself, which the end of its output would not: background programs may
# keep that open.
_LOOP = """
trap 'e=$?; printf "\\n%s %s exit\\n" "$CAMBIO_MARK" "$e"; printf "\\n%s\\n" "$CAMBIO_MARK" >&2' EXIT
set -m
exec 3<&0
while IFS= read -r -d '' c <&3; do eval "$c"; done
"""
_KILL_TIMEOUT = 5.0
_PROMPTLESS = ["bash", "--noprofile", "--norc", "-c", _LOOP]


class Shell:
    """Runs commands one after the other; ``limit`` is the most bytes kept of each stream."""

    def __init__(self, machine: Machine, limit: int = 1_000_000) -> None:
        self._machine = machine
        self._limit = limit
        self._process: Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._current: _Collector | None = None
        self._jobs: list[int] = []
        self._lock = asyncio.Lock()

    async def run(self, command: str, timeout: float) -> CommandResult:
        """Run ``command`` in the shell. After ``timeout`` seconds it is killed and the next one gets a new shell.

        :class:`~cambio_lab.errors.ActionError` for a command with a null character, which bash cannot be given.
        """
        if "\0" in command:
            raise ActionError("The command has a null character.", hint="Let printf make it.")
        async with self._lock:
            process = await self._started()
            collector = self._current = _Collector(self._limit)
            try:
                async with asyncio.timeout(timeout):
                    await process.write(collector.script(command).encode("utf-8", "replace") + b"\0")
                    await collector.done.wait()
            except TimeoutError:
                await self._kill()
                return collector.result(timed_out=True)
            except OSError:
                collector.ended()
            except asyncio.CancelledError:
                await asyncio.shield(self._kill())
                raise
            finally:
                self._current = None
            if collector.exited or collector.code is None:
                await self.close()  # the command ended the shell itself, with `exit` for one
            self._jobs = collector.jobs
            return collector.result()

    async def restart(self) -> None:
        """End the shell and all that still runs in its foreground; the next command gets a new one."""
        async with self._lock:
            await self._kill()

    async def close(self) -> None:
        """Let go of the shell without waiting for it; its machine is about to go."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        if self._process is not None:
            self._process.abandon()
        self._process = self._pump = None

    async def _started(self) -> Process:
        if self._process is None or self._pump is None or self._pump.done():
            await self.close()
            self._process = await self._machine.spawn(_PROMPTLESS)
            self._pump = asyncio.create_task(self._read(self._process), name="shell-output")
            self._jobs = []
        return self._process

    async def _read(self, process: Process) -> None:
        """Always reading: a background program that nobody listens to must not block on a full pipe."""
        try:
            while (piece := await process.read()) is not None:
                if self._current is not None:
                    self._current.add(*piece)
        finally:
            if self._current is not None:
                self._current.ended()

    async def _kill(self) -> None:
        process, jobs = self._process, self._jobs
        try:
            if process is not None:
                async with asyncio.timeout(_KILL_TIMEOUT):
                    await process.kill(jobs)
        except (DesktopLost, TimeoutError) as error:
            log.info("what the shell ran could not be ended: %s", error or "the machine does not answer")
        finally:
            await self.close()


class _Collector:
    """What one command prints, up to a mark that only we know."""

    def __init__(self, limit: int) -> None:
        self.done = asyncio.Event()
        self.code: int | None = None
        self.jobs: list[int] = []
        self.exited = False
        self._limit = limit
        self._mark = secrets.token_hex(12)
        self._parts = {STDOUT: bytearray(), STDERR: bytearray()}
        self._tail = {STDOUT: b"", STDERR: b""}
        self._ended: set[int] = set()
        self._truncated = False

    def script(self, command: str) -> str:
        """``command`` evaluated in the shell itself with nothing to read, then the mark on both streams."""
        return (
            f"CAMBIO_MARK={self._mark}\n"
            f"eval {shlex.quote(command)} </dev/null\n"
            f"printf '\\n%s %s %s\\n' {self._mark} $? \"$(jobs -p | tr '\\n' ' ')\"\n"
            f"printf '\\n%s\\n' {self._mark} >&2"
        )

    def add(self, stream: int, data: bytes) -> None:
        if stream in self._ended:
            return
        mark = b"\n" + self._mark.encode()
        text = self._tail[stream] + data
        at = text.find(mark)
        if at < 0:
            # Hold back what may be the beginning of a mark.
            keep = min(len(text), len(mark) - 1)
            self._keep(stream, text[: len(text) - keep])
            self._tail[stream] = text[len(text) - keep :]
            return
        line = text[at + 1 :]
        if b"\n" not in line:
            self._keep(stream, text[:at])
            self._tail[stream] = text[at:]
            return
        self._keep(stream, text[:at])
        self._tail[stream] = b""
        if stream == STDOUT:
            words = line.split(b"\n", 1)[0].split()
            self.code, self.exited = int(words[1]), words[2:] == [b"exit"]
            self.jobs = [] if self.exited else [int(word) for word in words[2:]]
        self._ended.add(stream)
        if len(self._ended) == 2:
            self.done.set()

    def _keep(self, stream: int, data: bytes) -> None:
        part = self._parts[stream]
        room = self._limit - len(part)
        part += data[: max(0, room)]
        self._truncated |= len(data) > room

    def ended(self) -> None:
        """The shell is gone; what was held back is output after all."""
        for stream, tail in self._tail.items():
            self._keep(stream, tail)
            self._tail[stream] = b""
        self.done.set()

    def result(self, *, timed_out: bool = False) -> CommandResult:
        if timed_out:
            self.ended()
        return CommandResult(
            stdout=self._parts[STDOUT].decode("utf-8", "replace"),
            stderr=self._parts[STDERR].decode("utf-8", "replace"),
            exit_code=None if timed_out else self.code,
            timed_out=timed_out,
            truncated=self._truncated,
        )
