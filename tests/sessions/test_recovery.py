"""What becomes of an earlier server's sessions when something is odd, slow or refused meanwhile."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from cambio_lab.desktop.provider import DesktopProvider
from cambio_lab.errors import ConfigurationError, DesktopUnavailable
from cambio_lab.events import Event, StatusChanged
from cambio_lab.replay.recorded import RECORDING
from cambio_lab.sessions.control import expired
from cambio_lab.sessions.registry import Registry
from cambio_lab.sessions.session import Session

from .parts import Bench, MemoryDesktop, ScriptedAgent, until, within, work


class KeptDesktop(MemoryDesktop):
    """Can be let go of without being removed, as a container can; ``holders`` counts who has it."""

    holders = 1

    async def release(self) -> None:
        self.holders -= 1


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Not started."""
    monkeypatch.setattr("cambio_lab.sessions.recovery.RETRY_SECONDS", 0.1)
    monkeypatch.setattr("cambio_lab.store.database.BUSY_SECONDS", 0.05)
    return Bench(tmp_path / "data")


async def interrupted(bench: Bench) -> Session:
    """A session whose server was killed in the middle of a turn."""

    async def think(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield StatusChanged("thinking", "The model is thinking.", {"try": 1})
        await agent.gate.race(asyncio.Event().wait())

    await bench.start()
    bench.script = think
    session = await bench.registry.create()
    desktop = KeptDesktop(bench.provider, session.desktop.desktop_id)
    desktop.holders = 0
    bench.provider.open[desktop.desktop_id] = desktop
    await session.send("Look")
    await until(lambda: bench.agents[-1].history and session.journal.broadcast.sequence >= 2)
    assert await session.journal.drain(5)
    await bench.crash()
    return session


async def hang(desktop_id: str, session_id: str) -> MemoryDesktop | None:
    await asyncio.sleep(3600)
    return None


async def test_a_row_that_makes_no_sense_ends_and_the_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.start()
    replayed, foreign, broken, good = [await bench.registry.create() for _ in range(4)]
    sessions = bench.store.sessions
    await sessions.update(replayed.id, desktop_kind=RECORDING)
    await sessions.update(foreign.id, desktop_kind="vmware")
    await sessions.update(broken.id, usage={"no_such_number": 1})
    await bench.crash()

    def provider_for(desktops: object, kind: str) -> DesktopProvider:
        if kind not in ("auto", "memory"):
            raise ConfigurationError(f"The desktop kind {kind!r} is unknown.")
        return bench.provider

    monkeypatch.setattr("cambio_lab.sessions.creation.Desktops.provider_for", provider_for)
    await bench.start()
    assert bench.registry.sessions == [bench.registry.get(good.id)]
    for session, reason in ((replayed, "recording"), (foreign, "vmware"), (broken, "recovered")):
        described = (await bench.store.sessions.get(session.id)) or pytest.fail("gone")
        assert (described.status, reason in (described.end_reason or "")) == ("error", True)
        assert described.ended_at is not None
    await bench.stop()


async def test_a_locked_database_at_a_restart_costs_nothing_and_leaves_nothing_half_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await interrupted(bench)
    desktop = bench.provider.open[session.desktop.desktop_id]
    assert isinstance(desktop, KeptDesktop)
    adopt = bench.provider.adopt

    async def adopted(desktop_id: str, session_id: str) -> MemoryDesktop | None:
        desktop.holders += 1
        return await adopt(desktop_id, session_id)

    monkeypatch.setattr(bench.provider, "adopt", adopted)
    other = sqlite3.connect(bench.directory / "cambio.db", isolation_level=None)
    start = Registry.start

    async def locked(registry: Registry) -> None:
        other.execute("BEGIN IMMEDIATE")
        await start(registry)

    monkeypatch.setattr(Registry, "start", locked)
    await within(5, bench.start())
    with pytest.raises(DesktopUnavailable):
        bench.registry.get(session.id)
    await asyncio.sleep(2.2)  # two more attempts
    assert desktop.holders == 0
    assert [agent.closed for agent in bench.agents[1:]] == [True]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("journal")]
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: bench.registry.state_of(session.id) == "idle")
    events = await bench.store.events.after(session.id, 0, stream=False)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert [json.loads(text)["type"] for _, text in events].count("error") == 1
    assert desktop.holders == 1
    await bench.registry.end(session.id)
    await bench.stop()


async def test_a_write_of_an_attempt_that_was_cut_off_is_seen_by_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await interrupted(bench)
    monkeypatch.setattr("cambio_lab.sessions.recovery.ADOPT_SECONDS", 0.2)
    admitted = bench.provider.adopt
    bench.provider.down = True
    await bench.start()
    write = bench.store.write
    slow = True

    async def late(*operations: object) -> object:
        """Written, and acknowledged too late."""
        nonlocal slow
        done = await write(*operations)  # type: ignore[arg-type]
        if slow and len(operations) > 1:
            slow = False
            await asyncio.sleep(1)
        return done

    monkeypatch.setattr(bench.store, "write", late)
    monkeypatch.setattr(bench.provider, "adopt", admitted)
    bench.provider.down = False
    await until(lambda: bench.registry.state_of(session.id) == "idle")
    assert not slow
    bench.script = work(0)
    await bench.registry.get(session.id).send("Go on")
    await until(lambda: bench.registry.state_of(session.id) == "idle")
    events = await bench.store.events.after(session.id, 0, stream=False)
    assert [json.loads(text)["type"] for _, text in events].count("error") == 1
    await bench.stop()


async def test_the_end_of_a_session_that_waits_is_the_end_while_it_is_taken_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.start()
    session = await bench.registry.create()
    await bench.crash()
    bench.provider.down = True
    await bench.start()
    adopt, asked = bench.provider.adopt, asyncio.Event()

    async def slow(desktop_id: str, session_id: str) -> MemoryDesktop | None:
        asked.set()
        await asyncio.sleep(0.2)
        return await adopt(desktop_id, session_id)

    monkeypatch.setattr(bench.provider, "adopt", slow)
    bench.provider.down = False
    await within(5, asked.wait())
    await bench.registry.end(session.id)
    await until(lambda: not bench.provider.open)
    await asyncio.sleep(0.3)
    assert bench.registry.sessions == []
    assert (await bench.registry.describe(session.id))["status"] == "inactive"
    await bench.stop()


async def test_an_engine_that_hangs_delays_no_other_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.start()
    await bench.registry.create()
    await bench.crash()
    bench.provider.down = True
    await bench.start()
    monkeypatch.setattr(bench.provider, "adopt", hang)
    bench.provider.down = False
    await asyncio.sleep(1.2)
    other = await bench.registry.create(None, {"timeout": 30})
    bench.clock.pass_time(31)
    await until(lambda: other.life.over, 3)
    await within(10, bench.stop())


async def test_the_housekeeping_survives_the_trouble_of_one_session(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.start()
    odd, other = await bench.registry.create(), await bench.registry.create(None, {"timeout": 30})

    async def broken(session: Session) -> str | None:
        if session is odd:
            raise RuntimeError("odd")
        return await expired(session)

    monkeypatch.setattr("cambio_lab.sessions.control.expired", broken)
    await asyncio.sleep(1.2)
    bench.clock.pass_time(31)
    await until(lambda: other.life.over, 3)
    await bench.stop()


async def test_desktops_that_do_not_answer_delay_no_other_session(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than any limit of attempts at once; each is tried again on its own."""
    await bench.start()
    bad = {(await bench.registry.create()).desktop.desktop_id for _ in range(12)}
    good = [await bench.registry.create() for _ in range(3)]
    await bench.crash()
    adopt = bench.provider.adopt

    async def hanging(desktop_id: str, session_id: str) -> MemoryDesktop | None:
        return await (hang if desktop_id in bad else adopt)(desktop_id, session_id)

    monkeypatch.setattr(bench.provider, "adopt", hanging)
    monkeypatch.setattr("cambio_lab.sessions.recovery.START_SECONDS", 0.3)
    await within(2, bench.start())
    assert {session.id for session in bench.registry.sessions} == {session.id for session in good}
    created = await within(2, bench.registry.create())
    assert created in bench.registry.sessions
    monkeypatch.setattr("cambio_lab.sessions.recovery.ADOPT_SECONDS", 0.2)
    await within(10, bench.stop())


async def test_a_session_that_waited_is_adopted_while_another_still_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.sessions.recovery.START_SECONDS", 0.1)
    await bench.start()
    bad, late = await bench.registry.create(), await bench.registry.create()
    await bench.crash()
    adopt, ready = bench.provider.adopt, False

    async def answering(desktop_id: str, session_id: str) -> MemoryDesktop | None:
        if session_id == bad.id:
            return await hang(desktop_id, session_id)
        if not ready:
            raise DesktopUnavailable("The desktop does not answer yet.")
        return await adopt(desktop_id, session_id)

    monkeypatch.setattr(bench.provider, "adopt", answering)
    await bench.start()
    ready = True
    await until(lambda: bench.registry.state_of(late.id) == "idle", 2)
    await bench.stop()
