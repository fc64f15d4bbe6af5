"""Readers: gapless, in order, bounded; the journal: nothing shown that is not stored."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

import pytest

from cambio_lab.errors import InvalidRequest, StoreUnavailable
from cambio_lab.events import StatusChanged, TextDelta
from cambio_lab.sessions import Subscription
from cambio_lab.sessions.session import Session
from cambio_lab.store import MessageQuery

from .parts import Bench, kinds, until, within, work


async def tell(session: Session, count: int, *, stream_every: int = 3) -> None:
    """Events as a turn would produce them; each third is a piece of text."""
    for number in range(count):
        event = TextDelta(f"{number}") if number % stream_every == 0 else StatusChanged("acting", f"{number}")
        await session.journal.post(session.stamped(event))
    assert await session.journal.drain(10)


async def take(reader: Subscription, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        return [json.loads((await anext(reader))[1]) for _ in range(count)]


async def test_two_kinds_of_readers_count_the_same_events_each_without_gap(bench: Bench) -> None:
    session = await bench.registry.create()
    plain, stream = session.subscribe(), session.subscribe(stream=True)
    await tell(session, 30)
    seen, streamed = await take(plain, 20), await take(stream, 30)
    assert [message["sequence"] for message in seen] == list(range(1, 21))
    assert [message["sequence"] for message in streamed] == list(range(1, 31))
    assert {message["type"] for message in seen} == {"status"}
    assert [message["content"] for message in streamed] == [str(number) for number in range(30)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reader_that_returns_gets_what_it_missed(bench: Bench, stream: bool) -> None:
    session = await bench.registry.create()
    await tell(session, 300)
    newest = 300 if stream else 200
    late = session.subscribe(after=newest - 120, stream=stream)
    pump = asyncio.create_task(tell(session, 300))  # while it catches up, more happens
    messages = await take(late, 120 + newest)
    await pump
    assert [message["sequence"] for message in messages] == list(range(newest - 119, 2 * newest + 1))


async def test_after_must_be_a_number_that_was_given(bench: Bench) -> None:
    session = await bench.registry.create()
    await tell(session, 3)
    assert session.subscribe(after=2).position == 2
    for wrong in (-1, 3, 10**9):
        with pytest.raises(InvalidRequest):
            session.subscribe(after=wrong)


async def test_without_after_nothing_old_is_told(bench: Bench) -> None:
    session = await bench.registry.create()
    await tell(session, 6)
    reader = session.subscribe()
    assert reader.position == 4
    await tell(session, 3)
    assert [message["sequence"] for message in await take(reader, 2)] == [5, 6]


async def test_a_slow_reader_holds_little_and_misses_nothing(bench: Bench) -> None:
    session = await bench.registry.create()
    reader, quick = session.subscribe(), session.subscribe()
    reader._max_bytes = 2000
    await tell(session, 3000, stream_every=10**9)  # the first is a piece of text
    assert reader.lagged > 0
    assert reader._bytes <= 2000
    messages = await take(reader, 2999)
    assert [message["sequence"] for message in messages] == list(range(1, 3000))
    assert await take(quick, 2999) == messages
    await tell(session, 2, stream_every=10**9)
    assert (await take(reader, 1))[0]["sequence"] == 3000  # live again


async def test_a_closed_reader_ends_and_is_forgotten(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe()
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0)
    reader.close()
    with pytest.raises(StopAsyncIteration):
        await within(1, waiting)
    assert len(session.journal.broadcast) == 0


async def test_nothing_is_shown_before_it_is_stored(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe(stream=True)
    pump = asyncio.create_task(tell(session, 200))
    database = sqlite3.connect(bench.store.directory / "cambio.db")
    for _ in range(200):
        sequence, _text = await within(5, anext(reader))
        stored = database.execute("SELECT max(stream_sequence) FROM events").fetchone()[0]
        assert stored >= sequence
    await pump
    database.close()


async def test_while_the_disk_takes_nothing_work_waits_and_news_are_refused(bench: Bench) -> None:
    bench.script = work(2, pause=0.05)
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("Look")
    await bench.store.write(lambda connection: connection.execute("PRAGMA busy_timeout = 50"))
    await take(reader, 2)

    other = sqlite3.connect(bench.store.directory / "cambio.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    await until(lambda: session.journal.failure is not None)
    before = session.journal.broadcast.sequence
    assert "another program" in session.snapshot_status()["content"]
    with pytest.raises(StoreUnavailable):
        await bench.registry.create()
    await asyncio.sleep(0.4)
    assert session.journal.broadcast.sequence == before
    other.execute("ROLLBACK")
    other.close()

    messages = await take(reader, 5)
    assert [message["sequence"] for message in messages] == [3, 4, 5, 6, 7]
    assert kinds(messages)[-2:] == ["agent_response", "status:idle"]
    await session.send("And again")
    assert (await bench.store.messages.page(session.id, MessageQuery(role="user"))).total == 2


async def test_a_message_is_refused_and_not_stored_while_the_disk_takes_nothing(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe()
    await bench.store.write(lambda connection: connection.execute("PRAGMA busy_timeout = 50"))
    other = sqlite3.connect(bench.store.directory / "cambio.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await within(2, session.send("lost?"))
    other.execute("ROLLBACK")
    other.close()
    assert await bench.store.health() is None
    await session.send("kept")
    assert (await take(reader, 1))[0]["sequence"] == 1  # no number was used up
    page = await bench.store.messages.page(session.id, MessageQuery(role="user"))
    assert [row.content for row in page.rows] == ["kept"]


async def test_a_session_can_be_ended_while_the_disk_takes_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.sessions.session.RECORD_SECONDS", 0.2)
    session = await bench.registry.create()
    listening = asyncio.create_task(everything(session.subscribe()))
    await bench.store.write(lambda connection: connection.execute("PRAGMA busy_timeout = 50"))
    other = sqlite3.connect(bench.store.directory / "cambio.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        await within(5, bench.registry.end(session.id))
    assert bench.provider.open == {}  # the desktop is freed all the same
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(5):
        while (row := await bench.store.sessions.get(session.id)) is None or row.status == "active":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert kinds(await within(5, listening)) == ["status:ended"]  # whoever listened hears the last words


async def everything(reader: Subscription) -> list[dict[str, Any]]:
    return [json.loads(text) async for _, text in reader]
