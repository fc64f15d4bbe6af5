"""A full disk: what was acknowledged survives, new work is refused, it goes on when space returns."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cambio_lab.errors import StoreUnavailable, TurnRunning
from cambio_lab.store import MessageQuery
from tests.sessions.parts import Bench, until, work

SIZE = 4 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes that are really full when they are full."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the space there is."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


async def test_a_full_disk_loses_nothing_refuses_and_recovers(small_disk: Path) -> None:
    bench = Bench(small_disk / "data")
    await bench.start()
    bench.script = work(1)
    session = await bench.registry.create()
    for number in range(3):
        await session.send(f"kept {number}")
        await until(lambda: session.state == "idle")
    ballast = fill(small_disk)

    try:
        for _ in range(50):  # the log's last page may still have room for a few
            await session.send("x" * 5000)
            await asyncio.sleep(0.02)
    except (StoreUnavailable, TurnRunning):
        pass  # refused, or the turn of the last one that found room is held by the disk
    await until(lambda: bench.store.failure is not None, 10)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        await bench.registry.create()
    assert len(bench.provider.open) == 1
    assert isinstance(await bench.store.health(), StoreUnavailable)
    page = await bench.store.messages.page(session.id, MessageQuery(role="user", limit=3))
    assert [row.content for row in page.rows] == ["kept 0", "kept 1", "kept 2"]

    ballast.unlink()
    began = asyncio.get_running_loop().time()
    await until(lambda: session.state == "idle" and session.journal.failure is None, 15)
    assert await bench.store.health() is None
    await session.send("after")
    await until(lambda: session.state == "idle")
    print(f"\nrecovered {asyncio.get_running_loop().time() - began:.2f} s after space returned")
    sent = (await bench.store.messages.page(session.id, MessageQuery(role="user"))).rows
    assert [row.content for row in sent][:3] == ["kept 0", "kept 1", "kept 2"]
    assert sent[-1].content == "after"
    events = await bench.store.events.after(session.id, 0, stream=True, limit=100_000)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    await bench.stop()


async def test_what_was_kept_on_a_full_disk_is_there_after_a_crash(small_disk: Path) -> None:
    bench = Bench(small_disk / "data")
    await bench.start()
    session = await bench.registry.create()
    await session.send("kept")
    await until(lambda: session.state == "idle")
    await session.journal.drain(5)
    ballast = fill(small_disk)
    await bench.crash()
    ballast.unlink()
    await bench.start()
    again = bench.registry.get(session.id)
    page = await bench.store.messages.page(again.id, MessageQuery())
    assert [row.content for row in page.rows] == ["kept", "You said kept"]
    await bench.stop()
