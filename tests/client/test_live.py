"""A script against a real server and desktop: what the small server only pretends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from cambio_lab.client import portal
from cambio_lab.client.message import Approval
from cambio_lab.client.workbench import Workbench
from cambio_lab.errors import InvalidRequest, SessionConflict, SessionEnded
from cambio_lab.jupyter.follower import follow

from ..kernels import ROOT
from ..live_server import LiveServer


@pytest.fixture
async def real(live: LiveServer) -> AsyncIterator[Workbench]:
    async with Workbench(live.url, live.token) as lab:
        yield lab


async def test_files_clipboard_and_screenshot(real: Workbench, tmp_path: Path) -> None:
    async with await real.create_session("Files", model="demo") as session:
        big = bytes(range(256)) * 20_000  # 5 MB
        (tmp_path / "big.bin").write_bytes(big)
        assert await session.files.put(tmp_path / "big.bin", "data/big.bin") == "data/big.bin"
        assert await session.files.get("data/big.bin") == big
        assert await session.files.get("data/big.bin", tmp_path / "back.bin") == tmp_path / "back.bin"
        assert (tmp_path / "back.bin").read_bytes() == big
        assert [row["path"] for row in await session.files.list("data")] == ["data/big.bin"]
        with pytest.raises(InvalidRequest, match=r"nothing\.txt"):
            await session.files.get("nothing.txt")
        await session.clipboard.set("naïve 漢字 🙂")
        assert await session.clipboard.get() == "naïve 漢字 🙂"
        assert (await session.screenshot()).size == (1280, 800)
        assert (await session.screenshot(width=320)).media_type == "image/jpeg"
    with pytest.raises(SessionConflict):
        await session.screenshot()


async def test_functions_are_called_by_the_agent(real: Workbench) -> None:
    called: list[str] = []

    def stock(item: str) -> int:
        """How many are in stock."""
        called.append(item)
        return {"apples": 12}[item]

    async with await real.create_session("Tools", model="demo", approval="never") as session:
        session.tools.add(stock)
        turn = await session.send('stock {"item": "apples"}')
        assert called == ["apples"]
        step = next(step for step in turn.steps if step.tool == "stock")
        assert step.ok and step.text == "12"
        assert any(step.arguments.get("text", "").endswith("# stock: 12\n") for step in turn.steps)
        turn = await session.send('stock {"item": "pears"}')
        assert [step.text for step in turn.steps if not step.ok] == ["KeyError: 'pears'"]
        session.tools.remove(stock)
        turn = await session.send('stock {"item": "apples"}')
        assert "stock" not in turn.tool_calls and len(called) == 2

        def bash(command: str) -> str:
            """A name that is taken."""
            return command

        session.tools.add(bash)
        with pytest.raises(InvalidRequest, match="bash"):
            await session.send("hello")
        assert list(session.tools) == []
        assert (await session.send("hello")).done


async def test_a_function_approves(real: Workbench) -> None:
    asked: list[Approval] = []

    def deny_typing(request: Approval) -> bool:
        asked.append(request)
        return request.tool != "type"

    async with await real.create_session("Asked", model="demo", approval="risky") as session:
        turn = await session.send("May I?", approve=deny_typing)
        assert asked[-1].tool == "type" and "May I?" in asked[-1].shown
        assert [step.status for step in turn.steps if step.tool == "type"] == ["denied"]
        assert "grant" in turn.text
        with pytest.raises(SessionConflict, match="Nothing waits"):
            await session.approve()

        def broken(request: Approval) -> bool:
            raise LookupError("no opinion")

        with pytest.raises(LookupError, match="no opinion"):
            await session.send("Again?", approve=broken)
        await session.wait_for("idle", timeout=5)
        task = asyncio.create_task(session.send("By hand"))
        while not task.done():
            try:
                request = await session.wait_for_approval(timeout=1)
            except TimeoutError:
                continue
            await request.approve()
        assert "type" in (await task).tool_calls


async def test_a_cut_connection_costs_nothing(real: Workbench) -> None:
    """The socket is cut several times while a real turn runs; the turn is whole."""
    async with await real.create_session("Cut", model="demo", approval="never") as session:
        task = asyncio.create_task(session.send("Through a bad line"))
        for _ in range(3):
            await asyncio.sleep(0.4)
            socket = session.channel._socket
            if socket is not None:
                portal.submit(_abort(socket))
        turn = await task
        assert session.channel.connections >= 2
        assert [step.number for step in turn.steps] == list(range(1, len(turn.steps) + 1))
        assert all(step.ok for step in turn.steps) and turn.text.startswith("I am the demo model")
        assert len(await session.history(role="user")) == 1


async def _abort(socket: Any) -> None:
    socket.transport.abort()


class Output:
    """An output of a cell that can be replaced."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    def update(self, content: dict[str, Any], *, raw: bool) -> None:
        self.content = content


async def test_the_record_has_what_was_said_between_two_actions(real: Workbench) -> None:
    output = Output()
    async with await real.create_session("Told", model="demo", approval="never") as session:
        await portal.call(follow(session, output))
        await session.send("Tell me", show=False)
        text = output.content["text/plain"]
    words = ["You: Tell me", "First I look", "1. screenshot", "Now I open a terminal", "I looked at the desktop"]
    places = [text.find(word) for word in words]
    assert -1 not in places and places == sorted(places), text


async def test_an_ended_session_says_so(real: Workbench) -> None:
    session = await real.create_session("Over", model="demo")
    await session.end()
    await session.end()
    with pytest.raises((SessionEnded, SessionConflict)):
        await session.send("Anybody there?")
    assert (await real.session(session.id)).status == "inactive"


SCRIPT = """
import asyncio, sys
from cambio_lab import Workbench

async def main():
    lab = Workbench()
    async with await lab.create_session("Script", model="demo", approval="never") as session:
        turn = await session.send("From a script", show=True)
    print("ANSWER", turn.text[:24])
    heavy = {"anthropic", "docker", "IPython", "ipywidgets", "tornado", "jupyter_server", "pandas"} & set(sys.modules)
    print("LOADED", sorted(heavy))

asyncio.run(main())
"""


async def test_a_plain_script(live: LiveServer, tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "CAMBIO_LAB_URL": live.url,
        "CAMBIO_LAB_TOKEN": live.token,
    }
    command = [sys.executable, "-X", "dev", "-c", SCRIPT]
    done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "1. screenshot" in done.stdout and "ANSWER I am the demo model" in done.stdout
    assert "LOADED []" in done.stdout
    assert live.token not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


async def test_recorded_runs_are_filtered_compared_exported_and_deleted(real: Workbench, tmp_path: Path) -> None:
    for name in ("Alpha run", "Beta run"):
        async with await real.create_session(name, model="demo", approval="never") as session:
            await session.send(f"Show {name}", show=False)
    runs = await real.runs("run", model="demo")
    assert [row["name"] for row in runs][:2] == ["Beta run", "Alpha run"] and "Alpha run" in runs._repr_html_()
    assert [row["name"] for row in runs.filter("alpha")] == ["Alpha run"]
    assert len(runs.filter(model="claude-sonnet-5-5")) == 0 and len(runs.filter(min_cost_usd=1)) == 0
    assert list(runs.frame["steps"][:2]) == [row["steps"] for row in runs][:2]
    comparison = await runs.compare(0, 1)
    assert comparison.left.name == "Beta run" and comparison.pairs[0].same and comparison.parts_at is not None
    both = await runs.export(tmp_path / "both.parquet", 0, 1)
    assert pyarrow.parquet.read_table(both).num_rows == sum(row["steps"] for row in list(runs)[:2])
    formats = (await portal.call(real.rest.json("GET", "/cambio/formats")))["formats"]
    assert {"cambio", "html", "inspect", "atif", "dataset", "video"} <= {one["name"] for one in formats}
    path = f"/sessions/{runs.entries[0].row['id']}/run"
    for one in formats:
        data, _ = await portal.call(real.rest.bytes(path, params={"format": one["name"]}))
        assert len(data) > 500, one["name"]
    with pytest.raises(InvalidRequest, match="no format"):
        await portal.call(real.rest.bytes(path, params={"format": "papyrus"}))
    gone = runs.entries[1].row["id"]
    await runs.delete(1)
    assert gone not in [row["id"] for row in await real.runs()]
    async with await real.create_session("Lives", model="demo") as session:
        with pytest.raises(SessionConflict, match="active"):
            await (await real.runs("Lives")).delete(0)
