"""Five hundred sessions, one after the other: nothing grows."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from pathlib import Path

import psutil
import pytest

from cambio_lab.store import SessionQuery
from cambio_lab.store.database import READERS
from tests.messages_api import MessagesApi
from tests.messages_api.policies import Steps
from tests.sessions.parts import FakeClock, MemoryProvider

from .observer import output_of
from .workbench import Listener, Workbench


def held() -> dict[str, int]:
    """What this process holds now."""
    gc.collect()
    process = psutil.Process()
    return {
        "memory": process.memory_info().rss,
        "files": process.num_fds(),
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "children": len(process.children(recursive=True)),
    }


async def held_when_quiet(before: dict[str, int]) -> dict[str, int]:
    """What is held once connections that were just closed are gone; at most two seconds later."""
    for _ in range(20):
        after = held()
        if after["files"] <= before["files"]:
            break
        await asyncio.sleep(0.1)
    return after


async def cycle(bench: Workbench) -> None:
    """Create, chat to the end of a turn, end."""
    session = await bench.registry.create()
    heard = Listener(session)
    await session.send("hello")
    await heard.until("agent_response")
    await bench.registry.end(session.id)
    await heard.until("status:ended")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("cycles", [60, pytest.param(500, marks=pytest.mark.slow)])
async def test_sessions_come_and_go_without_growth(
    tmp_path: Path, cycles: int, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four hours of the sessions' clock pass meanwhile. The agent and the SDK are the real ones, over HTTP."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_api.key)
    messages_api.policy = Steps(count=2, size=(320, 320))
    provider, clock = MemoryProvider(), FakeClock()
    bench = Workbench(tmp_path / "data", provider, messages_api, display="320x320", session_timeout=0)
    bench.clock = clock
    await bench.start()
    for _ in range(cycles // 5):
        await cycle(bench)
    # Each reader of the store opens its own connection on first use: two descriptors that are no growth.
    together = threading.Barrier(READERS)
    await asyncio.gather(*[bench.store.database.read(lambda _: together.wait(30)) for _ in range(READERS)])
    before = held()
    samples = []
    for number in range(cycles):
        await cycle(bench)
        messages_api.requests.clear()  # the stand-in keeps what it was sent, in this process
        clock.pass_time(4 * 3600 / cycles)
        if number % (cycles // 5) == cycles // 5 - 1:
            samples.append(held())
    after = await held_when_quiet(before)
    print(f"\n{cycles} cycles: before {before}, after {after}")
    assert after["memory"] - samples[0]["memory"] < 15_000_000
    for name in ("files", "tasks", "children"):
        assert after[name] <= before[name] + 1, name
    assert after["threads"] <= before["threads"] + 8  # pools fill up to their size and no further
    assert provider.open == {}
    assert (await bench.store.sessions.page(SessionQuery(status="inactive"))).total == cycles + cycles // 5
    await bench.stop()


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("cycles", [3, pytest.param(500, marks=pytest.mark.slow)])
async def test_containers_and_networks_come_and_go(tmp_path: Path, docker_host: str, cycles: int) -> None:
    """In a process of its own, which shares its heaps among threads as the server does."""
    networks = (await output_of("docker", "-H", docker_host, "network", "ls", "-q")).split()
    told = await output_of(sys.executable, "-m", "tests.faults.cycles", str(cycles), str(tmp_path / "data"))
    found = json.loads(told.splitlines()[-1])
    before, after = found["before"], found["after"]
    print(f"\n{cycles} cycles with containers: before {before}, after {after}")
    assert after["memory"] - before["memory"] < 25_000_000
    assert after["files"] <= before["files"] + 2
    assert after["threads"] <= before["threads"] + 8
    assert after["tasks"] <= before["tasks"] + 1
    assert after["children"] == before["children"] == 0
    label = f"label=org.cambio-lab.server={found['server_id']}"
    assert await output_of("docker", "-H", docker_host, "ps", "-aq", "--filter", label) == ""
    # The bridges of the server's kinds of network stay for the next start.
    assert len((await output_of("docker", "-H", docker_host, "network", "ls", "-q")).split()) <= len(networks) + 2
    assert await output_of("docker", "-H", docker_host, "network", "ls", "-q", "--filter", label) == ""
