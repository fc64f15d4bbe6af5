"""How much may be recorded: of one session, and in all."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cambio_lab.errors import RecordFull
from cambio_lab.sessions.session import Session
from cambio_lab.store import MessageQuery, SessionQuery

from .parts import Bench, kinds, until, work


async def told(session: Session) -> list[dict[str, object]]:
    """Everything that the session's readers were told."""
    assert await session.journal.drain(5)
    rows = await session.store.events.after(session.id, 0, stream=False, limit=1000)
    return [{**json.loads(text), "sequence": number} for number, text in rows]


async def test_a_session_at_its_limit_warns_ends_its_turn_and_keeps_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_record_mb=0.02)
    await bench.start()
    bench.script = work(200)
    session = await bench.registry.create()
    await session.send("Look")
    await until(lambda: session.state == "idle")
    messages = await told(session)
    names = kinds(messages)
    assert "status:record_limit_near" in names
    assert names.index("status:record_limit_near") < names.index("agent_response")
    assert names.count("tool_execution:started") == names.count("tool_execution:completed") < 200
    row = await bench.store.sessions.get(session.id)
    assert row is not None and 20_000 <= session.record_bytes <= row.record_bytes < 40_000
    assert len(await bench.store.steps.of(session.id)) == names.count("tool_execution:completed")
    with pytest.raises(RecordFull, match=r"limit of 0\.02 MB"):
        await session.send("More")
    assert (await bench.store.messages.page(session.id, MessageQuery(role="user"))).total == 1
    await bench.stop()


async def test_the_oldest_runs_that_are_not_pinned_are_removed_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.start()
    bench.script = work(3)
    ended = []
    for _ in range(4):
        session = await bench.registry.create()
        await session.send("x" * 100_000)
        await until(lambda one=session: one.state == "idle")  # type: ignore[misc]
        await bench.registry.end(session.id)
        ended.append(session.id)
    live = await bench.registry.create()
    await bench.registry.annotate(ended[0], pinned=True)
    size = await bench.store.database.live_bytes() + await bench.store.screenshots.disk_bytes()

    bench.registry.quota._total_bytes = size * 1.1
    await bench.registry.quota.look(bench.store, bench.registry.sessions)
    assert [one for one in kinds(await told(live)) if "record" in one] == ["status:record_limit_near"]
    assert (await told(live))[-1]["metadata"]["next_removed"] == ended[1]  # type: ignore[index]
    assert (await bench.store.sessions.page(SessionQuery())).total == 5

    bench.registry.quota._total_bytes = size * 0.99
    await bench.registry.quota.look(bench.store, bench.registry.sessions)
    left = {row.id for row in (await bench.store.sessions.page(SessionQuery())).rows}
    assert {ended[0], ended[3], live.id} <= left
    assert ended[1] not in left
    assert not bench.registry.quota.full
    await bench.stop()


async def test_a_turn_ends_when_all_records_are_full_and_nothing_can_be_removed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.start()
    bench.script = work(2, hold=asyncio.Event())
    session = await bench.registry.create()
    await session.send("Look")
    await until(lambda: session.steps == 2)
    bench.registry.quota._total_bytes = 1
    await bench.registry.quota.look(bench.store, bench.registry.sessions)
    await until(lambda: session.state == "idle")
    with pytest.raises(RecordFull):
        await session.send("More")
    bench.registry.quota._total_bytes = 10**12
    await bench.registry.quota.look(bench.store, bench.registry.sessions)
    bench.script = work(0)
    await session.send("More")
    await bench.stop()


async def test_messages_and_steps_carry_their_place_among_the_events(bench: Bench) -> None:
    """Written together, faster than a second's clock can tell them apart."""
    bench.script = work(2)
    session = await bench.registry.create()
    for text in ("one", "two", "three"):
        await session.send(text)
        await until(lambda: session.state == "idle")
    events = await told(session)
    rows = (await bench.store.messages.page(session.id, MessageQuery())).rows
    numbers = [row.sequence for row in rows]
    assert all(number is not None for number in numbers)
    assert numbers == sorted(set(numbers))  # type: ignore[type-var]
    asked = [event["sequence"] for event in events if kinds([event]) == ["status:user_message"]]
    assert [row.sequence for row in rows if row.role == "user"] == asked
    started = [event["sequence"] for event in events if kinds([event]) == ["tool_execution:started"]]
    assert [step.sequence for step in await bench.store.steps.of(session.id)] == started


async def test_pages_reach_the_very_first_message(bench: Bench) -> None:
    session = await bench.registry.create()
    operations = [
        bench.store.messages.appending(f"m{number}", session.id, "user", str(number), {}, 1.0) for number in range(450)
    ]
    await bench.store.write(*operations)
    found: list[str] = []
    while page := (
        await bench.store.messages.page(session.id, MessageQuery(newest_first=True, limit=200, offset=len(found)))
    ).rows:
        found += [row.content for row in page]
    assert found == [str(number) for number in reversed(range(450))]


async def test_removing_old_runs_reads_no_record_and_keeps_the_loop_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    await bench.start()
    bench.script = work(3)
    for _ in range(3):
        session = await bench.registry.create()
        await session.send("Look")
        await until(lambda one=session: one.state == "idle")  # type: ignore[misc]
        await bench.registry.end(session.id)
    for table in (bench.store.events, bench.store.steps, bench.store.exchanges, bench.store.transcript):
        monkeypatch.setattr(table, "_database", None)
    bench.registry.quota._total_bytes = 1000
    await bench.registry.quota.look(bench.store, bench.registry.sessions)
    assert (await bench.store.sessions.page(SessionQuery())).total == 0
    await bench.stop()
