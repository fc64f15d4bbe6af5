"""Deleting runs: the newest survive a limit, the file really shrinks, no named screenshot is removed."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.cli import main
from cambio_lab.errors import StoreUnavailable
from cambio_lab.recording.placeholders import difference, dump_change
from cambio_lab.store import ExchangeRow, SessionQuery, SessionRow, Store
from cambio_lab.store.database import Database

REQUEST = dump_change(difference(None, b"", b'{"model":"x","messages":[]}'))
NOW, DAY = time.time(), 86_400


async def keep_run(store: Store, number: int, *screenshots: bytes, size: int = 300_000, **values: Any) -> None:
    """A run ``r<number>`` of ``size`` bytes that ended ``100 - number`` seconds ago and saw ``screenshots``."""
    end = {"ended_at": NOW - 100 + number, **values}
    name = f"r{number}"
    await store.sessions.insert(SessionRow(name, name, "inactive", NOW - 1000 + number, {}, **end))
    await store.write(
        store.exchanges.appending(ExchangeRow(name, 1, NOW, "x" * 64, REQUEST, 200, {}, os.urandom(size)))
    )
    for screenshot in screenshots:
        await store.write(await store.transcript.appending(name, {"role": "user", "content": [image(screenshot)]}))


def image(data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(data).decode()}
    return {"type": "image", "source": source}


async def prune(directory: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    status = await asyncio.to_thread(main, ("runs", "--data-dir", str(directory), "prune", *words))
    said = "".join(capsys.readouterr())
    assert status == code, said
    return said


async def left(directory: Path) -> list[str]:
    store = await Store.open(directory)
    try:
        return sorted(row.id for row in (await store.sessions.page(SessionQuery())).rows)
    finally:
        await store.close()


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in [*directory.glob("cambio.db*"), *directory.glob("screenshots/*/*")])


def screenshots(directory: Path) -> set[bytes]:
    return {path.read_bytes() for path in directory.glob("screenshots/*/*")}


async def test_the_newest_runs_survive_a_limit_and_the_disk_gets_the_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, old, new = (letter * 200_000 for letter in (b"s", b"o", b"n"))
    store = await Store.open(tmp_path)
    for number in range(10):
        await keep_run(store, number, shared, *([old] if number < 3 else [new]))
    await store.close()
    before = on_disk(tmp_path)

    assert "0 runs deleted" in await prune(tmp_path, capsys, "--max-bytes", str(before + 100_000))
    assert "runs deleted, 200000 bytes of screenshots freed" in await prune(tmp_path, capsys, "--max-bytes", "2100000")

    assert await left(tmp_path) == ["r5", "r6", "r7", "r8", "r9"]
    assert on_disk(tmp_path) <= 2_100_000
    assert screenshots(tmp_path) == {shared, new}
    assert "0 runs deleted" in await prune(tmp_path, capsys, "--max-bytes", "2100000")


async def test_a_disk_without_room_for_the_copy_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: Database) -> int:
        raise StoreUnavailable("The store cannot take this now: the disk is full.", hint="Free some space.")

    store = await Store.open(tmp_path)
    for number in range(3):
        await keep_run(store, number)
    await store.close()
    monkeypatch.setattr(Database, "compact", full)
    said = await prune(tmp_path, capsys, "--max-bytes", "500000")
    assert "2 runs deleted" in said and "not compacted" in said and "disk is full" in said
    assert await left(tmp_path) == ["r2"]


async def test_age_counts_from_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = await Store.open(tmp_path)
    await store.sessions.insert(SessionRow("long", "long", "inactive", NOW - 9 * DAY, {}, ended_at=NOW - 60))
    await store.sessions.insert(SessionRow("old", "old", "inactive", NOW - 9 * DAY, {}, ended_at=NOW - 8 * DAY))
    await store.sessions.insert(SessionRow("no end", "no end", "error", NOW - 9 * DAY, {}))
    await store.sessions.insert(SessionRow("going on", "going on", "active", NOW - 9 * DAY, {}))
    await store.close()
    assert "2 runs deleted" in await prune(tmp_path, capsys, "--max-age-days", "7")
    assert await left(tmp_path) == ["going on", "long"]


async def test_screenshots_stay_while_a_damaged_database_may_name_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = await Store.open(tmp_path)
    await keep_run(store, 1, b"a screenshot")
    await store.close()
    with (tmp_path / "cambio.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)
    store = await Store.open(tmp_path)
    assert [path.name for path in store.damaged()] == [store.set_aside and store.set_aside.name]
    for number in range(2, 5):
        await keep_run(store, number)
    await store.close()
    (damaged,) = store.damaged()

    said = await prune(tmp_path, capsys, "--max-bytes", "800000")  # of ours: the damaged one does not count
    assert "1 run deleted" in said and damaged.name in said
    assert screenshots(tmp_path) == {b"a screenshot"}
    await asyncio.to_thread(main, ("runs", "--data-dir", str(tmp_path), "rm", "r4"))
    assert damaged.name in capsys.readouterr().out and screenshots(tmp_path)

    damaged.unlink()
    assert "12 bytes of screenshots freed" in await prune(tmp_path, capsys)
    assert not screenshots(tmp_path)


async def test_a_setting_that_does_not_convert_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMBIO_LAB_RUNS_MAX_BYTES", "10GB")
    said = await prune(tmp_path, capsys, code=1)
    assert said.count("\n") == 1 and "CAMBIO_LAB_RUNS_MAX_BYTES is '10GB'" in said


async def test_jupyters_configuration_file_counts_and_the_environment_is_stronger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(tmp_path / "data")
    await store.sessions.insert(SessionRow("old", "old", "inactive", NOW - 9 * DAY, {}))
    await store.close()
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("CAMBIO_LAB_DATA_DIR", raising=False)
    file = tmp_path / "jupyter_server_config.py"
    file.write_text(f"c.CambioLab.data_dir = {str(tmp_path / 'data')!r}\nc.CambioLab.runs_max_age_days = 7")

    async def prune_there() -> str:
        await asyncio.to_thread(main, ("runs", "prune"))
        return "".join(capsys.readouterr())

    monkeypatch.setenv("CAMBIO_LAB_RUNS_MAX_AGE_DAYS", "10")
    assert "0 runs deleted" in await prune_there()
    monkeypatch.delenv("CAMBIO_LAB_RUNS_MAX_AGE_DAYS")
    assert "1 run deleted" in await prune_there()
    file.write_text("c.CambioLab.runs_max_bytes = '10GB'")
    assert "c.CambioLab.runs_max_bytes is '10GB'" in await prune_there()
