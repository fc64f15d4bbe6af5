"""Promises of the file: acknowledged is on disk, modes, groups, damage, a full disk, one server."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cambio_lab.errors import ConfigurationError, StoreUnavailable
from cambio_lab.store import MessageQuery, SessionQuery, Store

from .conftest import session_row


def names(directory: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


async def test_nobody_else_can_read_the_data(store: Store) -> None:
    await store.sessions.insert(session_row())
    await store.screenshots.put(b"screenshot")
    for path in [store.directory, *store.directory.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_what_was_written_is_there_after_opening_again(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.sessions.insert(session_row())
    await store.messages.append("s-1", "user", "hello", time=1.0)
    sha256 = await store.screenshots.put(b"screenshot", "image/jpeg")
    await store.close()
    await store.close()
    assert names(tmp_path, "*-wal") == []

    store = await Store.open(tmp_path)
    assert [row.content for row in (await store.messages.page("s-1", MessageQuery())).rows] == ["hello"]
    assert await store.screenshots.read(sha256) == (b"screenshot", "image/jpeg")
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.sessions.insert(session_row("s-2"))


async def test_writes_that_wait_together_are_committed_together(store: Store) -> None:
    await store.sessions.insert(session_row())
    rounds = []  # a disk that stalls for a moment costs one of them
    for _ in range(3):
        began = time.perf_counter()
        await asyncio.gather(*(store.messages.append("s-1", "user", str(n), time=1.0) for n in range(2000)))
        rounds.append(time.perf_counter() - began)
    began = time.perf_counter()
    for n in range(200):
        await store.messages.append("s-1", "user", str(n), time=1.0)
    single = (time.perf_counter() - began) * 10
    assert (await store.messages.page("s-1", MessageQuery())).total == 6200
    assert min(rounds) < single / 2


async def test_one_bad_write_does_not_spoil_its_group(store: Store) -> None:
    await store.sessions.insert(session_row())
    outcomes = await asyncio.gather(
        *(store.messages.append("s-1" if n % 3 else "nobody", "user", str(n), time=1.0) for n in range(30)),
        return_exceptions=True,
    )
    assert [isinstance(outcome, ValueError) for outcome in outcomes] == [n % 3 == 0 for n in range(30)]
    assert (await store.messages.page("s-1", MessageQuery())).total == 20
    assert store.failure is None


async def test_all_of_a_transaction_or_none(store: Store) -> None:
    await store.sessions.insert(session_row())
    good = store.messages.appending("m", "s-1", "user", "x", None, 1.0)
    with pytest.raises(ValueError, match="no session"):
        await store.write(good, store.messages.appending("n", "nobody", "user", "x", None, 1.0))
    assert (await store.messages.page("s-1", MessageQuery())).total == 0


async def test_a_cancelled_writer_neither_blocks_nor_undoes(store: Store) -> None:
    await store.sessions.insert(session_row())
    task = asyncio.create_task(store.messages.append("s-1", "user", "hello", time=1.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.messages.append("s-1", "user", "second", time=1.0)
    assert (await store.messages.page("s-1", MessageQuery())).total == 2


async def test_the_second_server_is_refused_and_told_who_has_it(store: Store) -> None:
    with pytest.raises(ConfigurationError, match=str(os.getpid())) as refused:
        await Store.open(store.directory)
    assert "data_dir" in refused.value.hint
    assert str(store.directory) not in refused.value.describe()


async def test_a_damaged_file_is_set_aside_and_never_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept: set[bytes] = set()
    for round_number in range(3):
        store = await Store.open(tmp_path)
        await store.sessions.insert(session_row(f"s-{round_number}", config={"filler": "x" * 100_000}))
        await store.close()
        with (tmp_path / "cambio.db").open("r+b") as file:
            file.seek(8192)
            file.write(os.urandom(20_000))
        kept.add((tmp_path / "cambio.db").read_bytes())
        store = await Store.open(tmp_path)
        assert store.set_aside is not None
        assert store.set_aside.name in caplog.text
        assert (await store.sessions.page(SessionQuery())).total == 0
        await store.close()
    assert {(tmp_path / name).read_bytes() for name in names(tmp_path, "cambio.db.damaged-*")} == kept


async def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "cambio.db").write_bytes(b"not a database at all, but long enough to look at" * 100)
    store = await Store.open(tmp_path)
    assert store.set_aside is not None
    assert store.set_aside.read_bytes().startswith(b"not a database")
    await store.sessions.insert(session_row())
    await store.close()


@pytest.mark.timing
async def test_a_busy_database_refuses_and_recovers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.write(lambda connection: connection.execute("PRAGMA busy_timeout = 100"))
    await store.sessions.insert(session_row())
    other = sqlite3.connect(store.directory / "cambio.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="another program"):
        await store.messages.append("s-1", "user", "held", time=1.0)
    assert time.monotonic() - began < 3
    assert (await store.messages.page("s-1", MessageQuery())).total == 0  # readers go on
    assert isinstance(await store.health(), StoreUnavailable)
    other.execute("ROLLBACK")
    other.close()
    assert await store.health() is None
    await store.messages.append("s-1", "user", "now", time=1.0)


async def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    sha256 = await store.screenshots.put(b"screenshot")
    await store.close()
    folder = tmp_path / "screenshots" / sha256[:2]
    (folder / ".writing-0123").write_bytes(b"half a pic")
    store = await Store.open(tmp_path)
    assert [path.name for path in folder.iterdir()] == [f"{sha256}.png"]
    await store.close()


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "g" * 64, "A" * 64, "a" * 63])
async def test_only_digests_name_screenshots(store: Store, name: str) -> None:
    assert store.screenshots.path(name) is None
    with pytest.raises(ValueError, match="not an image"):
        await store.screenshots.put(b"<svg>", "image/svg+xml")


WRITER = """
import asyncio, sys
from pathlib import Path
from cambio_lab.store import Store, SessionRow
async def main():
    store = await Store.open(Path(sys.argv[1]))
    if await store.sessions.get("s") is None:
        await store.sessions.insert(SessionRow("s", "s", "active", 1.0, {}))
    async def one(n):
        number = 0
        while True:
            await store.messages.append("s", "user", f"{n}-{number}", time=1.0)
            print(f"{n}-{number}", flush=True)
            number += 1
    await asyncio.gather(*(one(sys.argv[2] + str(n)) for n in range(8)))
asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.slow)])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, rounds: int) -> None:
    acknowledged: list[str] = []
    for number in range(rounds):
        process = start([sys.executable, "-c", WRITER, str(tmp_path), f"{number}."])
        assert process.stdout is not None
        first = process.stdout.readline()
        await asyncio.sleep(0.01 + (number * 37 % 50) / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines = (first + process.stdout.read()).splitlines(keepends=True)
        process.stdout.close()
        acknowledged += [line.strip() for line in lines if line.endswith("\n")]
    store = await Store.open(tmp_path)
    stored = {row.content for row in (await store.messages.page("s", MessageQuery(limit=10_000_000))).rows}
    assert set(acknowledged) <= stored
    assert len(acknowledged) > rounds * 8
    assert store.set_aside is None
    await store.close()
