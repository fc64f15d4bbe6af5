"""Damage that is met after the start: refused, reported, and set aside by the next start, however large the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cambio_lab.errors import StoreCorrupt
from cambio_lab.store import MessageQuery, SessionQuery, Store
from cambio_lab.store.migrations import suspicion

from .conftest import session_row


def damage(path: Path, table: str) -> None:
    """Overwrite the first page of ``table`` and of its indices."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    roots = connection.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name = ? AND rootpage > 0", (table,))
    pages = [root for (root,) in roots]
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is too large to be checked from end to end."""
    monkeypatch.setattr("cambio_lab.store.migrations.CHECKED_AT_START", 0)


async def filled(directory: Path) -> Store:
    store = await Store.open(directory)
    await store.sessions.insert(session_row())
    await store.messages.append("s-1", "user", "hello", time=1.0)
    return store


@pytest.mark.parametrize("met_by", ["a write", "a read"])
async def test_damage_that_a_run_meets_stays_known(tmp_path: Path, met_by: str, large: None) -> None:
    store = await filled(tmp_path)
    damage(tmp_path / "cambio.db", "messages")
    await store.sessions.insert(session_row("s-2"))  # the caches of pages are older than this
    with pytest.raises(StoreCorrupt):
        if met_by == "a write":
            await store.messages.append("s-1", "user", "again", time=2.0)
        else:
            await store.messages.page("s-1", MessageQuery())
    assert isinstance(store.failure, StoreCorrupt)
    await store.sessions.insert(session_row("s-3"))  # what is whole can be written, and does not excuse the rest
    assert isinstance(store.failure, StoreCorrupt) and isinstance(await store.health(), StoreCorrupt)
    await store.close()

    store = await Store.open(tmp_path)
    assert store.set_aside is not None and await store.health() is None
    await store.close()
    store = await Store.open(tmp_path)
    assert store.set_aside is None
    await store.close()


async def test_what_a_start_needs_is_checked_in_a_large_file(tmp_path: Path, large: None) -> None:
    store = await filled(tmp_path)
    await store.close()
    damage(tmp_path / "cambio.db", "sessions")
    store = await Store.open(tmp_path)
    assert store.set_aside is not None
    assert (await store.sessions.page(SessionQuery())).total == 0
    await store.close()


async def test_a_suspicion_without_reason_is_forgotten(tmp_path: Path, large: None) -> None:
    store = await filled(tmp_path)
    await store.close()
    mark = suspicion(tmp_path / "cambio.db")
    mark.touch()
    store = await Store.open(tmp_path)
    assert store.set_aside is None and not mark.exists()
    assert await store.sessions.get("s-1") is not None
    await store.close()


async def test_deleted_rows_give_their_space_back(store: Store) -> None:
    await store.sessions.insert(session_row(status="inactive", config={"filler": "x" * 500_000}))
    held = await store.database.live_bytes()
    await store.sessions.remove("s-1")
    assert await store.database.live_bytes() < held - 490_000
    assert await store.database.compact() > 490_000
    assert (store.directory / "cambio.db").stat().st_size == await store.database.live_bytes()
    assert await store.database.compact() == 0
    await store.sessions.insert(session_row("s-2"))
