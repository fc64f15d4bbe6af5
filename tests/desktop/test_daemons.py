"""Calls on threads that no end of a server waits for: results, errors, their number, and the interpreter's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest

from cambio_lab.desktop.docker.engine import _AT_ONCE, Engine
from cambio_lab.errors import DesktopUnavailable

HANGS = """
import time
from cambio_lab.desktop.docker.engine import on_thread
for _ in range(3):
    on_thread(lambda: time.sleep(60))
time.sleep(0.1)
"""


@pytest.fixture
async def engine(docker_host: str) -> AsyncIterator[Engine]:
    engine = Engine(docker_host)
    yield engine
    engine.close()


async def test_results_and_errors_come_back(engine: Engine) -> None:
    results = [engine.call(partial(lambda number, _: number**2, number)) for number in range(5)]
    assert await asyncio.gather(*results) == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        await engine.call(lambda _: 1 // 0)
    engine.close()
    with pytest.raises(DesktopUnavailable):
        await engine.call(lambda _: None)


async def test_there_are_never_more_and_idle_clients_are_used_again(engine: Engine) -> None:
    go, running, clients = threading.Event(), threading.Semaphore(0), set()

    def work(client: object) -> None:
        clients.add(id(client))
        running.release()
        go.wait(10)

    calls = [asyncio.create_task(engine.call(work)) for _ in range(_AT_ONCE + 4)]
    for _ in range(_AT_ONCE):
        assert await asyncio.to_thread(running.acquire, timeout=5)
    assert not await asyncio.to_thread(running.acquire, timeout=0.1)
    go.set()
    await asyncio.gather(*calls)
    for _ in range(20):
        await engine.call(work)
    assert len(clients) == _AT_ONCE


async def test_what_waits_when_the_engine_is_closed_is_not_begun(engine: Engine) -> None:
    go, begun = threading.Event(), threading.Semaphore(0)

    def work(_: object) -> bool:
        begun.release()
        return go.wait(10)

    first = [asyncio.create_task(engine.call(work)) for _ in range(_AT_ONCE)]
    for _ in range(_AT_ONCE):
        assert await asyncio.to_thread(begun.acquire, timeout=5)
    second = asyncio.create_task(engine.call(work))
    await asyncio.sleep(0)
    engine.close()
    go.set()
    assert all(await asyncio.gather(*first))
    with pytest.raises(DesktopUnavailable, match="closed"):
        await second
    assert not begun.acquire(blocking=False)


@pytest.mark.timing
def test_a_call_that_is_never_answered_does_not_hold_up_the_end() -> None:
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", HANGS], check=True, timeout=30)
    assert time.monotonic() - begin < 10
