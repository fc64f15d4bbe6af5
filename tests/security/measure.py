"""What an attack costs the others: how long they wait, and what the server keeps and logs. Run as a program, it asks.

    python measure.py PORT TOKEN

prints the milliseconds of each ``GET /api/status`` until its input ends; a process of its own, so that what the test
does meanwhile is not measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import select
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.live_server import LiveServer


@dataclass
class Cost:
    """``waits`` in milliseconds; ``memory`` is the most that the server grew by, ``log`` what it wrote, in bytes."""

    waits: list[float] = field(default_factory=list)
    memory: int = 0
    log: int = 0

    def percentile(self, share: float) -> float:
        return sorted(self.waits)[int(len(self.waits) * share)]

    def __str__(self) -> str:
        waits = ", ".join(f"p{share * 100:g} {self.percentile(share):.1f}" for share in (0.5, 0.99))
        return f"{waits} ms of {len(self.waits)}; {self.memory / 1e6:+.0f} MB; log {self.log:+} bytes"


@asynccontextmanager
async def cost(server: LiveServer) -> AsyncIterator[Cost]:
    """Measure ``server`` while the block runs; the result is complete after it."""
    assert server.process is not None
    process, found = psutil.Process(server.process.pid), Cost()
    before, log = process.memory_info().rss, len(server.log())
    pipe = asyncio.subprocess.PIPE
    asking = await asyncio.create_subprocess_exec(
        sys.executable, __file__, str(server.port), server.token, stdin=pipe, stdout=pipe
    )

    async def sample() -> None:
        while True:
            found.memory = max(found.memory, process.memory_info().rss - before)
            for pid in (process.pid, asking.pid):
                prefer(pid)
            await asyncio.sleep(0.1)

    sampling = asyncio.create_task(sample())
    try:
        yield found
    finally:
        sampling.cancel()
        output, _ = await asking.communicate(b"")
        found.waits = [float(line) for line in output.split()]
        found.log = len(server.log()) - log


async def loaded(server: LiveServer) -> None:
    """Wait until the server has imported what it imports after its start: its memory grows by 50 MB meanwhile."""
    assert server.process is not None
    process, sizes = psutil.Process(server.process.pid), [0]
    async with asyncio.timeout(60):
        while len(sizes) < 15 or sizes[-1] - sizes[-15] > 1 << 20:
            sizes.append(process.memory_info().rss)
            await asyncio.sleep(0.1)


def prefer(pid: int, policy: int = os.SCHED_RR) -> None:
    """Put a process before all others, where that is allowed (root): what blocks its loop is measured, not the load.

    ``SCHED_OTHER`` puts it back.
    """
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(PermissionError, ProcessLookupError):
            level = os.sched_param(int(policy == os.SCHED_RR))
            os.sched_setscheduler(int(thread.name), policy | os.SCHED_RESET_ON_FORK, level)


def ask(port: int, token: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        began = time.perf_counter()
        connection.request("GET", "/api/status", headers={"Authorization": f"token {token}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        print((time.perf_counter() - began) * 1000)


if __name__ == "__main__":
    ask(int(sys.argv[1]), sys.argv[2])
