"""A program of this machine as :class:`~cambio_lab.desktop.machine.Process`, for tests that need no desktop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cambio_lab.desktop.sandbox.machine import Streams
from cambio_lab.errors import DesktopLost


class PlainProcess(Streams):
    """A child in a session of its own that dies with this process."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        super().__init__(child.stdin, child.stdout, child.stderr)
        self._child = child

    @classmethod
    async def start(cls, argv: Sequence[str], environment: Mapping[str, str], home: str) -> PlainProcess:
        """Start ``argv`` in ``home`` with exactly ``environment``."""
        # setpriv (util-linux) sets the parent-death signal after the fork, where Python code would not be safe.
        command = ["setpriv", "--pdeathsig", "KILL", "--", *argv]
        try:
            child = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment),
                cwd=home,
                start_new_session=True,
            )
        except OSError as error:
            raise DesktopLost("A program of the desktop cannot be started.") from error
        return cls(child)

    async def wait(self) -> int:
        # asyncio's own wait() lasts until the pipes are closed too, and a background program may hold those for ever.
        while self._child.returncode is None:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return self._child.returncode

    async def kill(self, spare: Sequence[int] = ()) -> None:
        for pid, group in _session(self._child.pid):
            if group not in spare:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        await self.wait()

    def abandon(self) -> None:
        super().abandon()
        transport = self._child._transport  # type: ignore[attr-defined]
        popen = transport.get_extra_info("subprocess")
        transport.close()  # closes the three pipes and kills the child
        if popen.returncode is None:
            popen.returncode = -signal.SIGKILL  # else `Popen` warns where the event loop ends before asyncio reaps it


def _session(session: int) -> list[tuple[int, int]]:
    """Process and group numbers of every process in ``session``."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(OSError, ValueError):
            text = Path(entry.path, "stat").read_text("utf-8", "replace")
            fields = text.rpartition(")")[2].split()
            if int(fields[3]) == session:
                found.append((int(entry.name), int(fields[2])))
    return found
