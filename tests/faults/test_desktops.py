"""A desktop or its engine fails under a session: said, survived or ended, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.desktop.docker.engine import Engine
from cambio_lab.desktop.docker.image import image_tag
from cambio_lab.desktop.docker.network import Networks
from cambio_lab.errors import DesktopUnavailable
from cambio_lab.sessions.session import Session
from cambio_lab.settings import Settings
from cambio_lab.store import MessageQuery
from tests.messages_api import MessagesApi
from tests.messages_api.policies import Script, Steps
from tests.messages_api.replies import reply, tool

from .engine_proxy import EngineProxy
from .observer import output_of
from .workbench import Listener, Message, Workbench

ENGINE = Path(__file__).parents[2] / "scripts" / "engine"
OURS, OUR_PID_FILE = "/run/cambio-lab-engine.sock", Path("/run/cambio-lab-engine.pid")
pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """A socket that was left open is reported here, not in whichever test comes later."""
    yield
    gc.collect()


@pytest.fixture
async def proxy(docker_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EngineProxy]:
    made = EngineProxy(docker_host, tmp_path / "engine.sock")
    await made.start()
    monkeypatch.setenv("DOCKER_HOST", made.host)
    yield made
    await made.stop()


@pytest.fixture
async def bench(
    tmp_path: Path, proxy: EngineProxy, messages_api: MessagesApi, monkeypatch: Any
) -> AsyncIterator[Workbench]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_api.key)
    made = Workbench(tmp_path / "data", "docker", messages_api)
    await made.start()
    yield made
    if proxy.mode != "up":
        await proxy.become("up")
    await made.stop()
    label = f"label=org.cambio-lab.server={made.server_id}"
    left = await output_of("docker", "-H", f"unix://{proxy._real}", "ps", "-aq", "--filter", label)
    assert left == "", "containers were left"


async def docker(proxy: EngineProxy, *arguments: str) -> str:
    return await output_of("docker", "-H", f"unix://{proxy._real}", *arguments)


async def nothing_left(bench: Workbench, proxy: EngineProxy) -> float:
    """Until the engine knows nothing of this server's any more, by the server's own doing; seconds."""
    began = time.monotonic()
    label = f"label=org.cambio-lab.server={bench.server_id}"
    while await docker(proxy, "ps", "-aq", "--filter", label) or await docker(
        proxy, "network", "ls", "-q", "--filter", label
    ):
        assert time.monotonic() - began < 20
        await asyncio.sleep(0.2)
    return time.monotonic() - began


async def ended(listener: Listener, since: float) -> tuple[Message, float]:
    message = await listener.until("status:ended")
    return message, time.monotonic() - since


@pytest.mark.timing
async def test_a_killed_container_ends_its_session_and_no_other(
    bench: Workbench, proxy: EngineProxy, messages_api: MessagesApi
) -> None:
    messages_api.policy = Steps(count=30)
    victim, other = await bench.registry.create(), await bench.registry.create()
    heard, healthy = Listener(victim), Listener(other)
    await victim.send("Make your steps.")
    await heard.until("tool_execution:completed")
    began = time.monotonic()
    assert victim.desktop.container_id is not None
    await docker(proxy, "kill", victim.desktop.container_id)
    message, seconds = await ended(heard, began)
    assert message["status"] == "error"
    assert "137" in message["content"]
    assert [one["type"] for one in heard.seen].count("error") == 1  # the turn's one end
    assert seconds < 10

    messages_api.policy = Steps(count=2)
    await other.send("And you?")
    assert (await healthy.until("agent_response"))["content"] == "Made 2 steps."
    row = await bench.store.sessions.get(victim.id)
    assert row is not None
    assert row.status == "error"
    steps = await bench.store.steps.of(victim.id)
    assert {step.status for step in steps} <= {"completed", "failed", "interrupted", "skipped"}
    print(f"\nkilled: ended after {seconds:.2f} s")


@pytest.mark.timing
async def test_a_frozen_container_can_be_stopped_thawed_and_ended(
    bench: Workbench, proxy: EngineProxy, messages_api: MessagesApi
) -> None:
    messages_api.policy = Script([reply(tool("bash", command="touch /tmp/asleep; sleep 5; echo awake"))])
    session = await bench.registry.create()
    heard = Listener(session)
    await session.send("Sleep.")
    await heard.until("tool_execution:started")
    assert session.desktop.container_id is not None
    # Not while the engine is starting a program in it: that one would be frozen half made, and the engine with it.
    for _ in range(200):
        if (await session.desktop.execute(["test", "-e", "/tmp/asleep"]))[0] == 0:
            break
        await asyncio.sleep(0.05)
    await docker(proxy, "pause", session.desktop.container_id)
    began = time.monotonic()
    await session.stop()
    answer = await heard.until("agent_response")
    stopped = time.monotonic() - began
    assert answer["metadata"]["stopped"] is True
    assert stopped < 2
    await docker(proxy, "unpause", session.desktop.container_id)
    messages_api.policy = Steps(count=2)
    await session.send("Go on.")
    assert (await heard.until("agent_response", start=len(heard.seen)))["content"] == "Made 2 steps."

    await docker(proxy, "pause", session.desktop.container_id)
    began = time.monotonic()
    await bench.registry.end(session.id)
    print(f"\nfrozen: stopped after {stopped:.2f} s, ended after {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < 15


async def test_a_program_that_eats_all_memory_dies_and_the_session_lives(
    tmp_path: Path, proxy: EngineProxy, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_api.key)
    bench = Workbench(tmp_path / "data", "docker", messages_api, desktop_memory=400 * 1024**2)
    await bench.start()
    greedy = "python3 -c 'x = bytearray(2_000_000_000); print(len(x))'; echo exit $?"
    messages_api.policy = Script([reply(tool("bash", command=greedy))])
    session = await bench.registry.create()
    heard = Listener(session)
    await session.send("Eat.")
    done = await heard.until("tool_execution:completed")
    assert "exit 137" in done["result"]["text"]
    await heard.until("agent_response")
    messages_api.policy = Steps(count=2)
    await session.send("Still there?")
    assert (await heard.until("agent_response", start=len(heard.seen)))["content"] == "Made 2 steps."
    await bench.stop()


async def test_a_dropped_vnc_connection_is_restored_within_the_turn(
    bench: Workbench, messages_api: MessagesApi
) -> None:
    messages_api.policy = Steps(count=16)
    session = await bench.registry.create()
    heard = Listener(session)
    desktop: Any = session.desktop.inner  # type: ignore[attr-defined]  # behind what records the clients
    await session.send("Make your steps.")
    for number in range(3):
        await heard.until("tool_execution:completed", start=len(heard.seen))
        desktop._connection._client._stream._transport.abort()  # what a reset connection looks like
        assert number == desktop._connection.reconnects or desktop._connection.reconnects > number - 1
    answer = await heard.until("agent_response")
    assert answer["content"] == "Made 16 steps."
    assert desktop._connection.reconnects == 3
    assert messages_api.refusals == []


async def test_an_engine_that_is_gone_refuses_new_sessions_and_leaves_the_old_ones(
    bench: Workbench, proxy: EngineProxy, messages_api: MessagesApi
) -> None:
    messages_api.policy = Steps(count=4)
    session = await bench.registry.create()
    heard = Listener(session)
    await proxy.become("gone")
    with pytest.raises(DesktopUnavailable, match="Engine"):
        await bench.registry.create()
    assert not (await bench.provider.health()).up
    await session.send("Work on.")  # eyes and hands need no engine
    assert (await heard.until("agent_response"))["content"] == "Made 4 steps."
    await proxy.become("up")
    began = time.monotonic()
    another = await bench.registry.create()
    print(f"\nengine back: a session after {time.monotonic() - began:.2f} s")
    await bench.registry.end(another.id)


async def test_an_engine_that_vanishes_during_creation_leaves_nothing(
    bench: Workbench, proxy: EngineProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.sessions.recovery.RETRY_SECONDS", 0.5)
    for moment in (0.02, 0.15, 0.4):
        creation = asyncio.create_task(bench.registry.create())
        await asyncio.sleep(moment)
        await proxy.become("gone")
        outcome = (await asyncio.gather(creation, return_exceptions=True))[0]
        await proxy.become("up")
        if isinstance(outcome, Session):
            await bench.registry.end(outcome.id)
        else:
            assert isinstance(outcome, DesktopUnavailable), outcome
    assert bench.registry.sessions == []
    await nothing_left(bench, proxy)


@pytest.mark.timing
async def test_an_engine_that_vanishes_during_removal(
    bench: Workbench, proxy: EngineProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.sessions.recovery.RETRY_SECONDS", 0.5)
    session = await bench.registry.create()
    await proxy.become("gone")
    began = time.monotonic()
    await bench.registry.end(session.id)
    assert time.monotonic() - began < 25
    described = await bench.registry.describe(session.id)
    assert described["status"] == "inactive"
    await proxy.become("up")
    print(f"\nremoved {await nothing_left(bench, proxy):.2f} s after the engine came back")


async def restart_engine(proxy: EngineProxy, container: str) -> None:
    """Really, if it is the one that this project started; one that others use is cut off while the container dies."""
    await proxy.become("gone")
    if proxy._real == OURS and await asyncio.to_thread(OUR_PID_FILE.exists):
        await output_of(str(ENGINE), "stop")
        await asyncio.sleep(1)
        assert (await output_of(str(ENGINE), "start")).strip().endswith(OURS)
    else:
        await docker(proxy, "stop", "-t", "5", container)
        await asyncio.sleep(1)
    await proxy.become("up")


@pytest.mark.timing
async def test_a_restarted_engine_takes_its_desktops_with_it(
    bench: Workbench, proxy: EngineProxy, messages_api: MessagesApi
) -> None:
    messages_api.policy = Steps(count=400)
    victim = await bench.registry.create()
    heard = Listener(victim)
    await victim.send("Make your steps.")
    await heard.until("tool_execution:completed")
    assert victim.desktop.container_id is not None
    await restart_engine(proxy, victim.desktop.container_id)
    began = time.monotonic()
    message, seconds = await ended(heard, began)
    assert message["status"] == "error"
    assert "exit code" in message["content"]
    assert [one["type"] for one in heard.seen].count("error") == 1
    assert seconds < 10
    steps = await bench.store.steps.of(victim.id)
    assert {step.status for step in steps} <= {"completed", "failed", "interrupted", "skipped"}
    messages_api.policy = Steps(count=2)
    another = await bench.registry.create()
    print(f"\nengine restarted: ended after {seconds:.2f} s, a new session after {time.monotonic() - began:.2f} s")
    healthy = Listener(another)
    await another.send("And you?")
    assert (await healthy.until("agent_response"))["content"] == "Made 2 steps."
    await bench.registry.end(another.id)


async def test_an_engine_that_restarts_and_keeps_its_containers_costs_nothing(
    bench: Workbench, proxy: EngineProxy, messages_api: MessagesApi
) -> None:
    """With live-restore the containers run on; what publishes their ports is started anew."""
    messages_api.policy = Steps(count=6)
    session = await bench.registry.create()
    heard = Listener(session)
    desktop: Any = session.desktop.inner  # type: ignore[attr-defined]  # behind what records the clients
    await session.send("Make your steps.")
    await heard.until("tool_execution:completed")
    await proxy.become("gone")
    desktop._connection._client._stream._transport.abort()
    await asyncio.sleep(2.5)
    assert session.status == "active"
    await proxy.become("up")
    began = time.monotonic()
    assert (await heard.until("agent_response"))["content"] == "Made 6 steps."
    print(f"\nengine back: the turn was over after {time.monotonic() - began:.2f} s")
    assert desktop._connection.reconnects == 1
    assert messages_api.refusals == []


async def test_a_slow_engine_is_waited_for(bench: Workbench, proxy: EngineProxy) -> None:
    proxy.delay = 0.5
    session = await bench.registry.create()
    assert session.state == "idle"
    await bench.registry.end(session.id)


async def test_rules_whose_container_was_not_started_are_loaded_again(proxy: EngineProxy) -> None:
    engine = Engine()
    networks = Networks(engine, server_id=uuid.uuid4().hex)
    proxy.failing_starts = 1
    await networks.prepare(image_tag(Settings().image))
    assert (proxy.failing_starts, networks.problem) == (0, "")
    engine.close()


@pytest.mark.parametrize("failing", ["desktop", "proxy"])
async def test_a_container_that_the_engine_cannot_start_is_made_again(
    bench: Workbench, proxy: EngineProxy, failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    closed = {"network": {"allow": ["example.test"]}} if failing == "proxy" else {}
    await bench.registry.end((await bench.registry.create()).id)  # the rules are loaded
    proxy.failing_starts = 1
    session = await bench.registry.create(config=closed)
    assert session.state == "idle"
    assert proxy.failing_starts == 0
    assert "another one is made" in caplog.text
    await bench.registry.end(session.id)


async def test_an_engine_that_starts_no_container_says_why(bench: Workbench, proxy: EngineProxy) -> None:
    await bench.registry.end((await bench.registry.create()).id)
    proxy.failing_starts = 2
    with pytest.raises(DesktopUnavailable, match="docker-init: permission denied"):
        await bench.registry.create()


@pytest.mark.timing
async def test_a_restart_while_the_engine_is_away_loses_no_session(
    tmp_path: Path, proxy: EngineProxy, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.sessions.recovery.RETRY_SECONDS", 0.5)
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_api.key)
    messages_api.policy = Steps(count=2)
    bench = Workbench(tmp_path / "data", "docker", messages_api, keep_sessions=True)
    await bench.start()
    session = await bench.registry.create("kept")
    heard = Listener(session)
    await session.send("First.")
    await heard.until("agent_response")
    await heard.close()
    await bench.stop()

    await proxy.become("gone")
    await bench.start()
    with pytest.raises(DesktopUnavailable):
        bench.registry.get(session.id)
    await proxy.become("up")
    began = time.monotonic()
    while bench.registry.state_of(session.id) != "idle":
        assert time.monotonic() - began < 30
        await asyncio.sleep(0.1)
    again = bench.registry.get(session.id)
    assert again.desktop.container_id == session.desktop.container_id
    print(f"\nadopted {time.monotonic() - began:.2f} s after the engine came back")
    heard = Listener(again)
    await again.send("Second.")
    await heard.until("agent_response")
    assert (await bench.store.messages.page(session.id, MessageQuery())).total == 4
    assert messages_api.refusals == []
    await bench.registry.end(session.id)
    await bench.stop()


async def test_containers_of_another_server_are_never_touched(
    bench: Workbench, tmp_path: Path, proxy: EngineProxy
) -> None:
    other = Workbench(tmp_path / "other", "docker")
    await other.start()
    theirs = await other.registry.create()
    assert theirs.desktop.container_id is not None
    ours = await bench.registry.create()
    assert await bench.provider.reap(frozenset({ours.desktop.desktop_id})) == []
    await bench.registry.end(ours.id)
    running = await docker(proxy, "ps", "-q", "--no-trunc")
    assert theirs.desktop.container_id in running
    await other.stop()
