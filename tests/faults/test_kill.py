"""``kill -9`` at a random moment of a run, again and again: what was acknowledged is there, and it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live_server import LiveServer
from tests.messages_api import MessagesApi
from tests.messages_api.policies import Steps

from .observer import Message, containers_of, create, observing, output_of

DOCKER_ROUNDS = [2, pytest.param(100, marks=pytest.mark.slow)]
SERVER = {"CAMBIO_LAB_POOL_SIZE": "0"}
ENDED = ("completed", "failed", "interrupted", "skipped")
STORED = {"completed": ("completed",), "failed": ("failed", "interrupted", "skipped")}
"""What a step can be in the store, by the status that its ``tool_execution`` said last."""


def processes_of(server: LiveServer) -> list[psutil.Process]:
    """Every process that works in this server's directories or was started by it."""
    mark = str(server.data_dir)
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words = [*(process.info["cmdline"] or []), *(process.info["environ"] or {}).values()]
        if any(mark in word for word in words) and process.pid != psutil.Process().pid:
            found.append(process)
    return found


async def everything(server: LiveServer, session_id: str) -> dict[str, Any]:
    """What the server says about a session: history, steps, and all events from the beginning."""
    async with server.client() as client:
        described = (await client.get(f"/sessions/{session_id}")).json()
        if described["status"] == "active":
            async with observing(server, session_id):  # it is adopted
                described = (await client.get(f"/sessions/{session_id}")).json()
        history = (await client.get(f"/sessions/{session_id}/history?limit=200&sort=timestamp:desc")).json()["messages"]
        steps = (await client.get(f"/sessions/{session_id}/steps?limit=200&sort=step:desc")).json()["steps"]
    events: list[Message] = []
    if described["status"] == "active":
        async with observing(server, session_id, after=0) as observer:
            last = described["sequence"]
            await observer.wait_for(lambda message: message["sequence"] >= last, 100)
            events = observer.seen[:last]
    return {"described": described, "history": history, "steps": steps, "events": events}


class Witness:
    """What was acknowledged to clients over all rounds."""

    def __init__(self) -> None:
        self.events: dict[int, Message] = {}
        self.messages: list[str] = []

    def note(self, seen: list[Message]) -> None:
        for message in seen:
            known = self.events.setdefault(message["sequence"], message)
            assert known == message, "a number was given twice"
            if message.get("metadata", {}).get("event") == "user_message":
                identity = message["metadata"]["message_id"]
                if identity not in self.messages:
                    self.messages.append(identity)

    def check(self, found: dict[str, Any]) -> None:
        events = {message["sequence"]: message for message in found["events"]}
        assert list(events) == list(range(1, len(events) + 1))
        for number, message in self.events.items():
            assert events[number] == message
        stored = {message["id"] for message in found["history"]}
        assert set(self.messages[-80:]) <= stored
        statuses = {step["step"]: step["status"] for step in found["steps"]}
        for message in self.events.values():
            if message["type"] == "tool_execution" and message["step"] in statuses:
                assert statuses[message["step"]] in (
                    STORED[message["status"]] if message["status"] != "started" else ENDED
                )
                if message["status"] == "started":
                    assert statuses[message["step"]] != "started"


async def one_round(server: LiveServer, session_id: str, witness: Witness, chance: random.Random) -> None:
    """Send a message, watch a random number of events, kill a random moment later."""
    async with observing(server, session_id) as observer:
        await observer.send({"content": "Make your steps."})
        await observer.wait_for(lambda message: message.get("metadata", {}).get("event") == "user_message")
        wanted = chance.randrange(1, 40)
        await observer.wait_for(lambda message: len(observer.seen) >= wanted, 200)
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        await server.kill()
        await asyncio.wait_for(observer.closed.wait(), 10)
        witness.note(observer.seen)


@pytest.mark.docker
@pytest.mark.parametrize("rounds", DOCKER_ROUNDS)
@pytest.mark.timeout(3600)
async def test_nothing_acknowledged_is_lost_and_the_conversation_goes_on(
    start_server: Callable[..., Any], messages_api: MessagesApi, docker_host: str, tmp_path: Path, rounds: int
) -> None:
    messages_api.policy = Steps(count=40, batch=2)
    options = {"desktop": "docker", "model": "claude-sonnet-5-5", "env": SERVER | messages_api.environment}
    chance = random.Random(9)
    witness = Witness()
    server: LiveServer = await start_server(data_dir=tmp_path / "data", **options)
    async with server.client() as client:
        session = await create(client, max_steps=100_000, max_cost_usd=1e6)
    for number in range(rounds):
        await one_round(server, session["id"], witness, chance)
        server = await start_server(data_dir=tmp_path / "data", **options)
        found = await everything(server, session["id"])
        assert found["described"]["status"] == "active", found["described"]
        assert found["described"]["container_id"] == session["container_id"]
        witness.check(found)
        assert await containers_of(server, docker_host) == [session["container_id"]]
        if number % 10 == 9:
            print(f"{number + 1} rounds, {len(witness.events)} events", flush=True)

    messages_api.policy = Steps(count=2)
    async with observing(server, session["id"]) as observer:
        await observer.send({"content": "And now to the end."})
        answer = (await observer.turn_end())["content"]
        # after a summary the stand-in counts earlier steps, too
        assert re.fullmatch(r"Made \d+ steps\.", answer), answer
    assert messages_api.refusals == []
    steps = sum(message["type"] == "tool_execution" for message in witness.events.values())
    print(f"\n{rounds} rounds, {len(witness.events)} events ({steps} of tools), {len(witness.messages)} messages")

    async with server.client() as client:
        assert (await client.delete(f"/sessions/{session['id']}")).status_code == 200
    await server.stop()
    assert await containers_of(server, docker_host) == []
    assert processes_of(server) == []
    assert list((tmp_path / "data").rglob(".writing-*")) == []
    assert list((tmp_path / "data").rglob("*-wal")) == []


@pytest.mark.parametrize("rounds", [2, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.timeout(1200)
async def test_local_desktops_die_with_their_server_and_leave_nothing(
    start_server: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="x"))  # short: a Unix socket's path must be
    monkeypatch.setenv("TMPDIR", str(folder))
    for number in range(rounds):
        server = await start_server(data_dir=tmp_path / "data", desktop="local", env={"TMPDIR": str(folder)})
        async with server.client() as client:
            rows = (await client.get("/sessions")).json()["sessions"]
            assert [row["status"] for row in rows] == ["error"] * number
            session = await create(client)
        async with observing(server, session["id"]) as observer:
            await observer.send({"content": "hello"})
            await asyncio.sleep(0.3 + number % 5 / 3)
            await server.kill()
        await gone(folder)
        found = await history_after(start_server, tmp_path, folder, session["id"])
        assert [message["content"] for message in found] == ["hello"]
    assert left_in(folder) == []
    shutil.rmtree(folder)


async def history_after(start: Callable[..., Any], tmp_path: Path, folder: Path, session_id: str) -> list[Message]:
    server = await start(data_dir=tmp_path / "data", desktop="local", env={"TMPDIR": str(folder)})
    async with server.client() as client:
        described = (await client.get(f"/sessions/{session_id}")).json()
        assert described["status"] == "error"
        found: list[Message] = (await client.get(f"/sessions/{session_id}/history?role=user")).json()["messages"]
    await server.stop()
    return found


async def gone(folder: Path) -> None:
    """Wait until no process uses this folder any more."""
    async with asyncio.timeout(10):
        while uses(folder):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def uses(folder: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if str(folder) in " ".join(process.info["cmdline"] or [])]


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Lives:
    """One life after another of the server's core, each ended by SIGKILL; what it said is what clients were told."""

    def __init__(self, api: MessagesApi, directory: Path, desktop: str) -> None:
        server_id = uuid.uuid4().hex
        self.arguments = {"directory": str(directory), "desktop": desktop, "api": api.base_url, "server_id": server_id}
        self.environment = {**os.environ, "ANTHROPIC_API_KEY": api.key}

    async def __aenter__(self) -> Lives:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.forked"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self.environment,
            cwd=Path(__file__).parents[2],
            limit=2**24,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 120)
        said: dict[str, Any] = json.loads(line)
        assert "failed" not in said, said
        return said

    async def begin(self, session_id: str | None, *, end: bool = False) -> tuple[int, dict[str, Any]]:
        """A new life; its process and what it said when it was ready."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**self.arguments, "session_id": session_id, "end": end}).encode() + b"\n")
        pid: int = (await self.hear())["pid"]
        return pid, await self.hear()

    async def until_gone(self) -> list[dict[str, Any]]:
        """What is said until the process is gone; a line that was cut off was told to nobody."""
        assert self.process.stdout is not None
        said: list[dict[str, Any]] = []
        while not said or "gone" not in said[-1]:
            line = await asyncio.wait_for(self.process.stdout.readline(), 120)
            at = line.rfind(b'{"gone"')
            said += [json.loads(line[max(at, 0) :])] if at > 0 or line.endswith(b"\n") else []
        return said[:-1]


def stored(directory: Path) -> dict[str, Any]:
    """What lies in the file, read by SQLite alone."""
    connection = sqlite3.connect(directory / "cambio.db")
    events = dict(connection.execute("SELECT sequence, body FROM events WHERE sequence IS NOT NULL ORDER BY sequence"))
    messages = {row[0] for row in connection.execute("SELECT id FROM messages WHERE role = 'user'")}
    steps = dict(connection.execute("SELECT step, status FROM steps"))
    (damage,) = connection.execute("PRAGMA quick_check").fetchone()
    connection.close()
    return {"events": events, "messages": messages, "steps": steps, "damage": damage}


def check_life(said: list[dict[str, Any]], found: dict[str, Any]) -> int:
    """Everything that was said is in the file; how many events that were."""
    assert found["damage"] == "ok"
    assert list(found["events"]) == list(range(1, len(found["events"]) + 1))
    events = [item["message"] for item in said if "message" in item]
    for message in events:
        number = message.pop("sequence")
        assert json.loads(found["events"][number]) == message
        if message["type"] == "tool_execution":
            assert found["steps"][message["step"]] in STORED.get(message["status"], (*ENDED, "started"))
    assert {item["sent"] for item in said if "sent" in item} <= found["messages"]
    return len(events)


@pytest.mark.docker
@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.timeout(2400)
async def test_the_core_is_killed_again_and_again(
    messages_api: MessagesApi, docker_host: str, tmp_path: Path, rounds: int
) -> None:
    """The same without Jupyter's start-up between the rounds: registry, store, agent, SDK and containers are real."""
    messages_api.policy = Steps(count=40, batch=2)
    chance, session, container, events, messages = random.Random(7), None, None, 0, 0
    label = f"label=org.cambio-lab.server={'f' * 32}"
    async with Lives(messages_api, tmp_path / "data", "docker") as lives:
        for number in range(rounds):
            pid, ready = await lives.begin(session)
            session, container = ready["ready"], container or ready["container"]
            assert ready["container"] == container
            said = [await lives.hear() for _ in range(chance.randrange(1, 30))]
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            os.kill(pid, signal.SIGKILL)
            said += await lives.until_gone()
            events += check_life(said, stored(tmp_path / "data"))
            messages += 1
            messages_api.requests.clear()
            if number % 10 == 9:
                print(f"{number + 1} rounds, {events} events told, {messages} messages", flush=True)
        messages_api.policy = Steps(count=2)
        _, ready = await lives.begin(session, end=True)
        said = await lives.until_gone()
    answers = [item["message"]["content"] for item in said if item.get("message", {}).get("type") == "agent_response"]
    assert answers == ["Made 2 steps."]
    assert said[-1] == {"left": True}
    assert messages_api.refusals == []
    assert await output_of("docker", "-H", docker_host, "ps", "-aq", "--filter", label) == ""
    assert await output_of("docker", "-H", docker_host, "network", "ls", "-q", "--filter", label) == ""
    assert list((tmp_path / "data").rglob(".writing-*")) == []
    assert list((tmp_path / "data").glob("*-wal")) == []
    found = stored(tmp_path / "data")
    assert set(found["steps"].values()) <= set(ENDED)
    assert len(found["messages"]) == rounds + 1
