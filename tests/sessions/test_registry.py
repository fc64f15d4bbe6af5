"""All sessions of a server: creation, capacity, expiry, restarts, news."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.desktop.provider import DesktopOptions, Progress
from cambio_lab.errors import (
    CapacityReached,
    DesktopUnavailable,
    InvalidRequest,
    SessionEnded,
    SessionNotFound,
    UnsupportedModel,
)
from cambio_lab.events import Event
from cambio_lab.sessions import SessionFeed
from cambio_lab.sessions.agent import RecordedAgent
from cambio_lab.sessions.config import SessionConfig
from cambio_lab.store import MessageQuery, SessionQuery

from .parts import Bench, MemoryDesktop, ScriptedAgent, kinds, until, within, work


async def test_a_session_is_usable_stored_and_described(bench: Bench) -> None:
    session = await bench.registry.create(
        "mine", {"timeout": 60, "display": "640x480", "network": {"allow": ["a.test"]}}
    )
    assert bench.registry.get(session.id) is session
    described = await bench.registry.describe(session.id)
    assert (described["name"], described["status"], described["state"]) == ("mine", "active", "idle")
    assert bench.provider.asked[0].size == (640, 480)
    assert (bench.provider.asked[0].network, bench.provider.asked[0].allow_hosts) == ("allow", ("a.test",))
    page = await bench.store.sessions.page(SessionQuery())
    assert [(row.id, row.config["timeout"]) for row in page.rows] == [(session.id, 60)]
    unnamed = await bench.registry.create()
    assert unnamed.name.startswith("Session ")
    with pytest.raises(SessionNotFound):
        bench.registry.get("nobody")
    with pytest.raises(SessionNotFound):
        await bench.registry.describe("nobody")


BAD: dict[str, list[Any]] = {
    "timeout": [0, -1, True, "60", float("inf"), float("nan"), [], {}],
    "max_messages": [0, 1.5, True, "3"],
    "model": [5, ["demo"]],
    "desktop": ["vmware", 1],
    "display": ["1280", "10x10", "99999x1", "1280x800x24", 5, "0800x600"],
    "max_steps": [0, -3, 1.5, True],
    "max_cost_usd": [-1, "free"],
    "approval": ["sometimes", ["no_such_member"], 5],
    "approval_timeout": [0, "soon"],
    "network": ["closed", {"allow": "x"}, {"allow": ["a b"]}, {"deny": []}, ["a"]],
    "record_mode": ["twice"],
    "system": [5, "\ud800"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SessionConfig.parse({key: value})
    assert list(refused.value.details) == [f"config.{key}"]


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest, match="colour: unknown; timeout: must be at least 1") as refused:
        SessionConfig.parse({"colour": "red", "timeout": 0, "max_messages": 5})
    assert set(refused.value.details) == {"config.colour", "config.timeout"}
    assert all(key in refused.value.hint for key in SessionConfig.model_fields)


async def test_name_and_config_are_refused_together(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match=r"fork: .*; timeout: must be at least 1; name: ") as refused:
        await bench.registry.create("x" * 201, {"timeout": 0, "fork": {"run": 1}})
    assert set(refused.value.details) == {"name", "config.timeout", "config.fork"}


def test_none_is_not_given() -> None:
    assert SessionConfig.parse(dict.fromkeys(SessionConfig.model_fields)).given() == {}
    assert SessionConfig.parse(None).given() == {}


@pytest.mark.parametrize(
    ("config", "error"),
    [({"model": "gpt-7"}, UnsupportedModel), ({"effort": "huge"}, InvalidRequest), ({"max_tokens": 5}, InvalidRequest)],
)
async def test_what_the_agent_cannot_do_is_refused_before_a_desktop_is_taken(
    bench: Bench, config: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bench.registry.create(None, config)
    assert bench.provider.asked == []


async def test_capacity_counts_those_being_made(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_desktops=3)
    await bench.start()
    bench.provider.slow = 0.05
    outcomes = await asyncio.gather(*(bench.registry.create() for _ in range(10)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(CapacityReached) == 7
    await bench.registry.end(bench.registry.sessions[0].id)
    await bench.registry.create()
    assert len(bench.provider.open) == 3
    await bench.stop()
    assert bench.provider.open == {}


async def test_a_creation_that_fails_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.provider.down = True
    with pytest.raises(DesktopUnavailable):
        await bench.registry.create()
    bench.provider.down = False

    async def broken(request: object) -> RecordedAgent:
        raise RuntimeError("no agent")

    monkeypatch.setattr(bench.registry, "context", replace(bench.registry.context, make_agent=broken))
    with pytest.raises(RuntimeError):
        await bench.registry.create()
    assert bench.provider.open == {}
    assert (await bench.store.sessions.page(SessionQuery())).total == 0


async def test_time_is_up_is_said_before_and_at_the_end(bench: Bench) -> None:
    session = await bench.registry.create(None, {"timeout": 100})
    reader = session.subscribe()
    bench.clock.pass_time(70)
    await asyncio.sleep(1.2)
    assert session.journal.broadcast.sequence == 0
    bench.clock.pass_time(15)
    _, text = await within(3, anext(reader))
    warning = json.loads(text)
    assert (warning["metadata"]["event"], warning["metadata"]["reason"]) == ("expiring", "timeout")
    assert 10 <= warning["metadata"]["seconds_left"] <= 15
    bench.clock.pass_time(15)
    async with asyncio.timeout(5):
        rest = [json.loads(text) async for _, text in reader]
    assert kinds(rest) == ["status:ended"]
    assert rest[0]["metadata"]["reason"] == "timeout"
    assert bench.provider.open == {}
    with pytest.raises(SessionEnded):
        bench.registry.get(session.id)


async def test_an_idle_session_ends_and_a_watched_or_working_one_does_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path, idle_timeout=50)
    await bench.start()
    bench.script = work(1, hold=asyncio.Event())
    idle, watched, working = [await bench.registry.create() for _ in range(3)]
    reader = watched.subscribe()
    await working.send("x")
    bench.clock.pass_time(60)
    await until(lambda: idle.status == "inactive")
    assert idle.end_reason == "idle"
    await asyncio.sleep(1.1)
    assert {watched.status, working.status} == {"active"}
    reader.close()
    await bench.stop()


async def test_the_wall_clock_may_be_set_without_harm(bench: Bench) -> None:
    session = await bench.registry.create(None, {"timeout": 3600})
    reader = session.subscribe()
    bench.clock.wall = 10 * 365 * 86400.0
    await session.send("in the future")
    await asyncio.sleep(1.2)
    bench.clock.wall = -10 * 365 * 86400.0
    await session.send("in the past")
    await until(lambda: session.state == "idle")
    assert session.status == "active"
    times = [json.loads((await anext(reader))[1])["timestamp"] for _ in range(6)]
    assert times == sorted(times)
    page = await bench.store.messages.page(session.id, MessageQuery())
    assert [row.content for row in page.rows][::2] == ["in the future", "in the past"]


async def test_a_kept_session_goes_on_after_an_orderly_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep_sessions=True)
    await bench.start()
    bench.script = work(1, hold=asyncio.Event())
    session = await bench.registry.create("kept")
    await session.send("Look")
    await until(lambda: session.steps == 1)
    await within(10, bench.stop())
    assert list(bench.provider.open) == [session.desktop.desktop_id]

    await bench.start()
    again = bench.registry.get(session.id)
    assert (again.name, again.state, again.steps) == ("kept", "idle", 1)
    assert bench.agents[-1].history[0]["content"] == [{"type": "text", "text": "Look"}]
    reader = again.subscribe(after=0)
    bench.script = work(0)
    await again.send("Go on")
    async with asyncio.timeout(5):
        found: list[dict[str, Any]] = []
        while kinds(found).count("status:idle") < 2:
            found.append(json.loads((await anext(reader))[1]))
    assert [message["sequence"] for message in found] == list(range(1, len(found) + 1))
    end = ["agent_response", "status:idle"]  # of the turn that the restart stopped, too
    before = ["status:user_message", "tool_execution:started", *end]
    assert kinds(found) == [*before, "status:restarted", "status:user_message", *end]
    await bench.registry.end(session.id)
    await bench.stop()


async def test_a_desktop_that_cannot_outlive_the_server_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, keep_sessions=True)
    await bench.start()
    kept, local = await bench.registry.create(), await bench.registry.create()
    monkeypatch.setattr(local.desktop, "outlives_server", False)
    await within(10, bench.stop())
    assert list(bench.provider.open) == [kept.desktop.desktop_id]
    await bench.start()
    assert [session.id for session in bench.registry.sessions] == [kept.id]
    row = await bench.store.sessions.get(local.id)
    assert row is not None and (row.status, row.end_reason) == ("inactive", "shutdown")
    await bench.stop()


async def test_after_a_crash_the_interrupted_turn_is_closed_and_the_conversation_valid(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.start()
    bench.script = work(3, hold=asyncio.Event())
    session = await bench.registry.create()
    orphan = await bench.provider.acquire("nobody", bench.provider.asked[0])
    dead = await bench.registry.create("dead")
    await session.send("Look")
    await until(lambda: session.steps == 3)
    assert await session.journal.drain(5)
    await bench.crash()
    bench.provider.open.pop(dead.desktop.desktop_id)

    await bench.start()
    assert orphan.desktop_id not in bench.provider.open
    with pytest.raises(SessionEnded):
        bench.registry.get(dead.id)
    described = await bench.registry.describe(dead.id)
    assert (described["status"], "did not survive" in described["end_reason"]) == ("error", True)

    again = bench.registry.get(session.id)
    steps = await bench.store.steps.of(session.id)
    assert [step.status for step in steps] == ["completed", "completed", "interrupted"]
    history = bench.agents[-1].history
    assert history[-2]["content"][0]["id"] == history[-1]["content"][0]["tool_use_id"]
    assert history[-1]["content"][0]["is_error"] is True
    assert await bench.store.transcript.load(session.id) == history
    reader = again.subscribe(after=0)
    found = [json.loads((await anext(reader))[1]) for _ in range(reader._source.sequence)]
    assert kinds(found)[-2:] == ["error", "status:interrupted"]
    assert [message["sequence"] for message in found] == list(range(1, len(found) + 1))
    row = await bench.store.sessions.get(session.id)
    assert row is not None
    assert row.turn_message_id is None
    await bench.stop()


async def test_a_crash_of_time_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.start()
    session = await bench.registry.create(None, {"timeout": 100})
    await bench.crash()
    bench.clock.pass_time(101)
    await bench.start()
    async with asyncio.timeout(5):
        while (await bench.registry.describe(session.id))["status"] == "active":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (await bench.registry.describe(session.id))["end_reason"] == "timeout"
    await bench.stop()


async def test_sessions_wait_for_an_engine_that_is_down_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.sessions.recovery.RETRY_SECONDS", 0.1)
    bench = Bench(tmp_path)
    await bench.start()
    session, other = await bench.registry.create(), await bench.registry.create()
    await bench.crash()
    bench.provider.down = True
    await bench.start()
    with pytest.raises(DesktopUnavailable):
        bench.registry.get(session.id)
    assert (await bench.registry.describe(session.id))["status"] == "active"
    await bench.registry.end(other.id)
    with pytest.raises(SessionEnded):
        bench.registry.get(other.id)
    bench.provider.down = False
    await until(lambda: bench.registry.state_of(session.id) == "idle")
    await bench.registry.get(session.id).send("hello")
    await bench.stop()


async def test_an_orderly_stop_ends_everything_in_time(tmp_path: Path) -> None:
    async def stubborn(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield agent.say("assistant", "Hm.")
        await asyncio.sleep(3600)

    bench = Bench(tmp_path)
    await bench.start()
    bench.script = stubborn
    sessions = [await bench.registry.create() for _ in range(5)]
    for session in sessions:
        await session.send("x")
    await within(10, bench.stop())
    assert bench.provider.open == {}
    await bench.start()
    rows = (await bench.store.sessions.page(SessionQuery())).rows
    assert {(row.status, row.end_reason) for row in rows} == {("inactive", "shutdown")}
    with pytest.raises(SessionEnded):
        bench.registry.get(sessions[0].id)
    await bench.stop()


async def test_news_of_all_sessions_are_the_newest_ones(bench: Bench) -> None:
    first = await bench.registry.create("first")
    watch = bench.registry.watch()
    assert (await within(1, anext(watch)))["id"] == first.id
    second = await bench.registry.create("second")
    assert (await within(1, anext(watch)))["id"] == second.id
    for _ in range(50):
        await first.send("x")
        await until(lambda: first.state == "idle")
    assert len(watch._changed) == 1  # a slow listener is told how it is, not how it came to be
    assert (await within(1, anext(watch)))["state"] == "idle"
    await bench.registry.end(second.id)
    async with asyncio.timeout(5):
        while (news := await anext(watch))["status"] != "inactive":
            pass
    assert news["id"] == second.id
    watch.close()
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_slow_first_time_is_told_to_those_who_watch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = bench.registry.watch()
    go_on = asyncio.Event()
    acquire = bench.provider.acquire

    async def slow(session_id: str, options: DesktopOptions) -> MemoryDesktop:
        assert options.progress is not None
        options.progress(Progress("Step 3/9 : RUN apt-get install", 0.3))
        await go_on.wait()
        if bench.provider.down:
            raise DesktopUnavailable("The image cannot be built.")
        return await acquire(session_id, options)

    monkeypatch.setattr(bench.provider, "acquire", slow)
    creating = asyncio.create_task(bench.registry.create("slow"))
    news = await within(1, anext(watch))
    assert (news["name"], news["progress"]) == ("slow", {"text": "Step 3/9 : RUN apt-get install", "fraction": 0.3})
    late = bench.registry.watch()
    assert await within(1, anext(late)) == news
    go_on.set()
    session = await within(5, creating)
    assert (await within(1, anext(watch)))["id"] == session.id == news["id"]

    bench.provider.down = True
    with pytest.raises(DesktopUnavailable):
        await bench.registry.create("never")
    gone = await within(1, anext(watch))
    assert (gone["state"], gone["progress"]["text"]) == ("error", "The image cannot be built.")
    assert [row["name"] async for row in first(bench.registry.watch())] == ["slow"]


async def first(watch: SessionFeed) -> AsyncGenerator[dict[str, Any], None]:
    """What a new watch is told at once."""
    while watch._changed:
        yield await anext(watch)
    watch.close()


async def test_what_is_there_already_is_no_news(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    acquire = bench.provider.acquire

    async def quick(session_id: str, options: DesktopOptions) -> MemoryDesktop:
        assert options.progress is not None
        options.progress(Progress("cambio-lab:1 is already there", 1.0))
        return await acquire(session_id, options)

    monkeypatch.setattr(bench.provider, "acquire", quick)
    watch = bench.registry.watch()
    session = await bench.registry.create("quick")
    news = await within(1, anext(watch))
    assert news["id"] == session.id and "progress" not in news


async def test_a_session_that_ended_long_ago_is_still_known(bench: Bench) -> None:
    session = await bench.registry.create()
    await bench.registry.end(session.id)
    bench.registry._ended.clear()  # as after ten thousand others
    with pytest.raises(SessionEnded):
        await bench.registry.find(session.id)
    with pytest.raises(SessionNotFound):
        await bench.registry.find("nobody")
