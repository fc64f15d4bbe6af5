"""A creation that fails late, or that the server's stop overtakes, leaves no session that nobody can end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cambio_lab.errors import DesktopUnavailable, StoreUnavailable
from cambio_lab.store import SessionQuery

from .parts import Bench, until


async def test_a_history_that_cannot_be_kept_leaves_no_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fork(*_: object) -> list[dict[str, Any]]:
        return [{"role": "user", "content": "x"}]

    def refusing(connection: object) -> None:
        raise StoreUnavailable("The disk is full.")

    async def appending(*_: object) -> object:
        return refusing

    monkeypatch.setattr("cambio_lab.sessions.creation._fork", fork)
    monkeypatch.setattr(bench.store.transcript, "appending", appending)
    with pytest.raises(StoreUnavailable):
        await bench.registry.create()
    assert (await bench.store.sessions.page(SessionQuery())).total == 0
    assert bench.provider.open == {}
    assert bench.agents[-1].closed


async def test_a_creation_that_is_cancelled_while_it_is_written_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = bench.store.database.write, asyncio.Event()

    async def slow(operation: Any) -> Any:
        done = await write(operation)
        if not written.is_set():
            written.set()
            await asyncio.sleep(3600)
        return done

    monkeypatch.setattr(bench.store.database, "write", slow)
    creating = asyncio.create_task(bench.registry.create())
    await written.wait()
    creating.cancel()
    await asyncio.wait({creating})
    await until(lambda: not bench.provider.open)
    (row,) = (await bench.store.sessions.page(SessionQuery())).rows
    assert (row.status, row.ended_at is not None) == ("inactive", True)


async def test_a_creation_that_the_stop_overtakes_leaves_nothing(bench: Bench) -> None:
    bench.provider.slow = 0.1
    creating = asyncio.create_task(bench.registry.create())
    await asyncio.sleep(0.05)
    await bench.registry.stop()
    with pytest.raises(DesktopUnavailable):
        await creating
    rows = (await bench.store.sessions.page(SessionQuery())).rows
    assert all(row.ended_at is not None for row in rows)
    assert bench.provider.open == {}
