"""MCP with the official client, over HTTP and over standard input and output, against a real server and desktop."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx2
import numpy as np
import pytest
import pytest_asyncio
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

import cambio_lab
from cambio_lab import interop
from cambio_lab.client.message import Approval
from cambio_lab.client.workbench import Workbench
from cambio_lab.errors import ServerUnreachable
from cambio_lab.reports import Run

from ..api.conftest import running
from ..live_server import LiveServer

BUTTON = (0, 170, 60)
PROGRAM = """
import tkinter
root = tkinter.Tk()
root.geometry("400x300+300+200")
root.configure(background="#ffffff")
button = tkinter.Button(root, text="", background="#00aa3c", activebackground="#00aa3c", width=12, height=5)
button.configure(command=lambda: root.configure(background="#0000ff"))
button.pack(pady=60)
root.mainloop()
"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    async for found in running(tmp_path_factory.mktemp("server")):
        yield found


@asynccontextmanager
async def over_http(server: LiveServer) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=server.headers, timeout=60) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(server: LiveServer) -> AsyncIterator[Client]:
    environment = {
        "CAMBIO_LAB_URL": server.url,
        "CAMBIO_LAB_TOKEN": server.token,
        "PYTHONPATH": str(Path(cambio_lab.__file__).parent.parent),
    }
    command = StdioServerParameters(command=sys.executable, args=["-m", "cambio_lab.cli", "mcp"], env=environment)
    async with Client(command) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> tuple[str, Image.Image | None]:
    """The words of a result and its last image; a failed call raises its words."""
    result = await client.call_tool(tool, arguments)
    words = "\n".join(block.text for block in result.content if block.type == "text")
    if result.is_error:
        raise RuntimeError(words)
    images = [block for block in result.content if block.type == "image"]
    return words, Image.open(io.BytesIO(base64.b64decode(images[-1].data))).convert("RGB") if images else None


def middle_of(image: Image.Image, colour: tuple[int, int, int]) -> list[int] | None:
    """The middle of what has this colour."""
    rows, columns = np.where((np.abs(np.asarray(image).astype(int) - colour) < 12).all(axis=2))
    return [int(columns.mean()), int(rows.mean())] if len(rows) > 500 else None


async def seen(client: Client, session_id: str, colour: tuple[int, int, int]) -> list[int]:
    """Look until this colour is there; its middle."""
    async with asyncio.timeout(40):
        while True:
            _, image = await call(client, "look", session_id=session_id)
            if image is not None and (place := middle_of(image, colour)):
                return place


@pytest.mark.parametrize("connect", [over_http, over_stdio])
async def test_a_client_clicks_the_button_it_saw(live: LiveServer, connect: Any, tmp_path: Path) -> None:
    async with connect(live) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} >= {
            "create_session",
            "act",
            "look",
            "read_run",
        }
        words, image = await call(client, "create_session", name="By MCP", model="claude-sonnet-5-5")
        session_id = json.loads(words.splitlines()[0])["session_id"]
        assert f"{live.url}/vnc/{session_id}" in words or connect is over_stdio
        assert image is not None and image.size == (1280, 800)
        async with Workbench(live.url, live.token) as lab:
            session = await lab.session(session_id)
            await session.files.put(PROGRAM.encode(), "button.py")
            await session.programs.run(["bash", "-c", "setsid python3 ~/button.py >/dev/null 2>&1 </dev/null &"])
            await session.detach()
        place = await seen(client, session_id, BUTTON)
        await call(client, "act", session_id=session_id, action="mouse_move", coordinate=[10, 10])
        words, image = await call(client, "act", session_id=session_id, action="left_click", coordinate=place)
        assert words.startswith("left_click: completed") and image is not None
        assert await seen(client, session_id, (0, 0, 255)), "the click turns the window blue"
        words, _ = await call(client, "read_run", session_id=session_id)
        assert "left_click" in words and "user: left_click" in words
        await call(client, "end_session", session_id=session_id)
        with pytest.raises(RuntimeError, match="over"):
            await call(client, "look", session_id=session_id)
        words, _ = await call(client, "list_runs", status="inactive")
        assert session_id in words
    async with live.client() as http:
        (tmp_path / "run.cambio").write_bytes((await http.get(f"/sessions/{session_id}/run")).content)
    run = Run.load(tmp_path / "run.cambio")
    assert run.rows[-1]["action"] == "left_click" and run.rows[-1]["arguments"] == {"coordinate": place}
    replayed = await run.replay()
    assert replayed.identical


async def test_a_drag_takes_the_arguments_that_the_tool_describes(live: LiveServer) -> None:
    async with over_http(live) as client:
        (act,) = [tool for tool in (await client.list_tools()).tools if tool.name == "act"]
        told = {name: str(facts.get("description")) for name, facts in act.input_schema["properties"].items()}
        begin, end = (next(name for name, words in told.items() if what in words) for what in ("begins", " ends"))
        words, _ = await call(client, "create_session", name="A drag", model="demo")
        session_id = json.loads(words.splitlines()[0])["session_id"]
        places: dict[str, Any] = {begin: [100, 100], end: [300, 200]}
        words, _ = await call(client, "act", session_id=session_id, action="left_click_drag", **places)
        assert words.startswith("left_click_drag: completed")
        await call(client, "end_session", session_id=session_id)


async def test_who_may_not_call(live: LiveServer) -> None:
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    async with httpx2.AsyncClient(base_url=live.url, timeout=60) as http:
        assert (await http.post("/mcp", json=ask)).status_code == 401
        assert (await http.post("/mcp", json=ask, headers=live.headers | {"Host": "evil.example"})).status_code == 403
        assert (await http.get("/mcp", headers=live.headers)).status_code == 405
        listed = await http.post("/mcp", json=ask, headers=live.headers | {"Accept": "application/json"})
        assert listed.status_code == 200 and len(listed.json()["result"]["tools"]) == 7
        refused = await http.post("/mcp", content="[1", headers=live.headers | {"Content-Type": "application/json"})
        assert refused.status_code == 400


async def test_a_person_approves_and_stops_what_the_client_does(live: LiveServer) -> None:
    """The session's policy holds for an MCP client, which no tool lets change it."""
    async with over_http(live) as client, Workbench(live.url, live.token) as lab:
        words, _ = await call(client, "create_session", name="Watched")
        session_id = json.loads(words.splitlines()[0])["session_id"]
        session = await lab.session(session_id)
        await session.update(approval="always")
        acting = asyncio.create_task(call(client, "act", session_id=session_id, action="left_click", coordinate=[5, 5]))
        assert (await session.wait_for_approval()).tool == "left_click"
        await session.deny()
        assert "denied" in (await acting)[0] and "did not grant" in (await acting)[0]
        acting = asyncio.create_task(call(client, "act", session_id=session_id, action="wait", duration=30))
        await (await session.wait_for_approval()).approve()
        await session.wait_for("acting")
        await session.stop()
        assert (await acting)[0].startswith("A person stopped this.")
        with pytest.raises(RuntimeError, match="no session"):
            await call(client, "look", session_id="nothing")
        with pytest.raises(RuntimeError, match="action"):
            await call(client, "act", session_id=session_id, action="format_disk")


SHOP = """
from mcp.server.mcpserver import MCPServer

shop = MCPServer("shop")

@shop.tool(name="stock.of", description="How many are in stock.")
def stock(item: str) -> str:
    return str({"apples": 12}[item])

shop.run()
"""


async def test_a_session_is_given_the_tools_of_an_mcp_server(live: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    async with Workbench(live.url, live.token) as lab:
        session = await lab.create_session("Shopping", model="demo", approval="always")
        assert await session.tools.add_mcp([sys.executable, str(tmp_path / "shop.py")]) == ["stock_of"]
        asked: list[str] = []

        def approve(request: Approval) -> bool:
            asked.append(request.tool)
            return True

        turn = await session.send('stock_of {"item": "apples"}', approve=approve)
        (step,) = [step for step in turn.steps if step.tool == "stock_of"]
        assert step.ok and step.text == "12" and "stock_of" in asked
        turn = await session.send('stock_of {"item": "pears"}', approve=approve)
        (step,) = [step for step in turn.steps if step.tool == "stock_of"]
        assert not step.ok and step.text == "ToolFailed: Error executing tool stock.of"
        names = await session.tools.add_mcp(f"{live.url}/mcp", prefix="lab_", headers=live.headers)
        assert "lab_list_runs" in names
        turn = await session.send('lab_list_runs {"limit": 1}', approve=approve)
        (step,) = [step for step in turn.steps if step.tool == "lab_list_runs"]
        assert step.ok and session.id in step.text
        run = await session.load_run()
        await session.end()
        assert (await run.replay()).identical, "from the file alone"
        session = await lab.create_session("Nothing there", model="demo")
        with pytest.raises(ServerUnreachable, match="MCP server"):
            await session.tools.add_mcp([sys.executable, "-c", "pass"])
        await session.end()


async def test_an_endpoint_that_cannot_start_says_so_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[str] = []

    class Manager:
        handle_request = "the application"

        @asynccontextmanager
        async def run(self) -> AsyncIterator[None]:
            starts.append("start")
            if len(starts) == 1:
                raise RuntimeError("no task group")
            yield

    monkeypatch.setattr(interop, "_manager", lambda registry: Manager())
    endpoint = interop.Endpoint(cast(Any, None))
    with pytest.raises(RuntimeError, match="no task group"):
        await asyncio.wait_for(endpoint.application(), 10)
    assert await asyncio.wait_for(endpoint.application(), 10) == "the application"
    await endpoint.aclose()
