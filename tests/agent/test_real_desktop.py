"""The loop on real desktops: a form in a real browser, approval before typing, stops that really let go."""

from __future__ import annotations

import asyncio
import io
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import psutil
import pytest
from PIL import Image

from cambio_lab.agent import Agent, AgentOptions, Gate
from cambio_lab.agent.client import ModelClient
from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Desktop, Size
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.events import ApprovalRequested, ToolFinished, ToolStarted, TurnFailed, TurnFinished
from cambio_lab.settings import Settings
from tests.messages_api import (
    Form,
    MessagesApi,
    Reply,
    Script,
    View,
    find_color,
    legacy,
    member,
    reply,
    screenshot,
    tool,
)

from .conftest import of, play
from .stream import turn_events

SETTINGS = replace(Settings(), pool_size=0)
FIELDS = {"#ffd54f": "Ada Lovelace", "#80deea": "Zürich 漢字", "#ce93d8": "3 < 5 & 'so' \"on\""}
FORM = Form(FIELDS, submit="#00c853", read_back="cat ~/received.txt")
SERVER = Path(__file__).with_name("form_server.py")


@dataclass(frozen=True)
class Obedient:
    """Fills the form, but takes a denial for an answer."""

    def __call__(self, view: View) -> Reply:
        if any(result.get("is_error") for result in view.results):
            return reply("You did not want that, so I stopped.")
        answer = FORM(view)
        at = next((index for index, block in enumerate(answer.blocks) if block.get("name") == "type"), None)
        if at is None:
            return answer
        # look between the click and the typing: on a busy machine a browser moves its focus late
        looked = bool(view.calls) and len(view.calls) > 1 and view.calls[-2]["name"] == "left_click"
        return reply(*(answer.blocks[at:] if looked else [*answer.blocks[:at], screenshot()]))


@pytest.fixture
async def browser_desktop(docker_host: str) -> AsyncIterator[Desktop]:
    """A container in whose Firefox the form is shown."""
    provider = await make_provider(SETTINGS, server_id=uuid.uuid4().hex, kind="docker")
    desktop = await provider.acquire("test", DesktopOptions())
    await desktop.write_file("form_server.py", SERVER.read_bytes())
    await desktop.run_command("(python3 ~/form_server.py >/dev/null 2>&1 &)")
    await desktop.run_command("(firefox-esr --kiosk http://127.0.0.1:8765/ >/dev/null 2>&1 &)")
    for _ in range(200):
        if await shows(desktop, "#00c853"):
            break
        await asyncio.sleep(0.3)
    yield desktop
    await provider.stop()


@pytest.fixture
async def local_desktop() -> AsyncIterator[Desktop]:
    provider = await make_provider(SETTINGS, server_id=uuid.uuid4().hex, kind="local")
    yield await provider.acquire("test", DesktopOptions())
    await provider.stop()


async def shows(desktop: Desktop, color: str) -> bool:
    screenshot = await desktop.screenshot()
    with Image.open(io.BytesIO(screenshot.data)) as image:
        return find_color(numpy.asarray(image.convert("RGB")), color) is not None


@pytest.fixture
async def agent_on(api: MessagesApi) -> AsyncIterator[object]:
    clients: list[tuple[Agent, ModelClient]] = []

    def build(desktop: Desktop, gate: Gate) -> Agent:
        client = ModelClient(base_url=api.base_url, api_key=api.key)
        agent = Agent(desktop=desktop, options=AgentOptions(), gate=gate, client=client)
        clients.append((agent, client))
        return agent

    yield build
    for agent, client in clients:
        await agent.aclose()
        await client.aclose()


@pytest.mark.docker
async def test_a_form_in_a_real_browser_is_filled_in_only_with_approval(
    browser_desktop: Desktop, api: MessagesApi, agent_on: object
) -> None:
    api.policy = Obedient()
    agent = agent_on(browser_desktop, Gate("risky", 30.0))  # type: ignore[operator]
    asked = []
    async for event in turn_events(agent, "Fill in the form."):
        if isinstance(event, ApprovalRequested):
            asked.append(event.shown)
            agent.gate.decide(None, False)
    assert asked == ['type {"text": "Ada Lovelace"}'], "asked before anything was typed"
    assert isinstance(event, TurnFinished) and event.text == "You did not want that, so I stopped."
    code, _, _ = await browser_desktop.execute(["test", "-e", "received.txt"])
    assert code != 0 and await shows(browser_desktop, "#00c853"), "the form is as it was"

    agent.clear()
    asked.clear()
    async for event in turn_events(agent, "Please do fill in the form."):
        if isinstance(event, ApprovalRequested):
            asked.append(event.tool)
            agent.gate.decide(event.tool_use_id, True)
    assert isinstance(event, TurnFinished), event
    assert asked == ["type", "type", "type", "bash"]
    values = "; ".join(f"{name}={value}" for name, value in zip(("name", "city", "note"), FIELDS.values(), strict=True))
    assert event.text == f"The form received: {values}"


@pytest.mark.timing
@pytest.mark.parametrize("name", ["wait", "hold_key", "bash"])
async def test_stop_lets_go_of_a_real_desktop(
    name: str, local_desktop: Desktop, api: MessagesApi, agent_on: object
) -> None:
    agent = agent_on(local_desktop, Gate("never"))  # type: ignore[operator]
    await play(agent)
    calls = {
        "wait": member("wait", duration=30),
        "hold_key": member("hold_key", text="shift", duration=30),
        "bash": tool("bash", command="sleep 30; touch ~/too-late"),
    }
    api.policy = Script([reply(calls[name], screenshot())], end="Here.")
    pressed = 0.0

    def press() -> None:
        nonlocal pressed
        pressed = time.perf_counter()
        agent.gate.stop()

    async for event in turn_events(agent, "Go."):
        if isinstance(event, ToolStarted):
            asyncio.get_running_loop().call_later(0.3, press)
    took = time.perf_counter() - pressed
    assert isinstance(event, TurnFinished) and event.stopped
    print(f"stop in {name} on a real desktop: {took * 1000:.1f} ms")
    assert took < 0.25, "100 ms, and what a busy machine adds"
    # the same shell and keyboard work again at once
    api.policy = Script([reply(tool("bash", command="echo alive"), member("key", text="Escape"), screenshot())])
    found = await play(agent)
    assert [event.is_error for event in of(found, ToolFinished)] == [False] * 3
    assert of(found, ToolFinished)[0].text.strip() == "alive"


@pytest.mark.timing
async def test_a_real_desktop_that_is_removed_ends_the_turn(
    local_desktop: Desktop, api: MessagesApi, agent_on: object
) -> None:
    agent = agent_on(local_desktop, Gate("never"))  # type: ignore[operator]
    api.policy = Script([reply(member("wait", duration=60), screenshot())])
    killed = 0.0
    async for event in turn_events(agent, "Go."):
        if isinstance(event, ToolStarted):
            killed = time.perf_counter()
            _kill_display_server()
    assert isinstance(event, TurnFailed) and event.fatal, event
    assert time.perf_counter() - killed < 5


def _kill_display_server() -> None:
    """As a crash would take it away; every Xvnc below this process is this test's own."""
    found = [child for child in psutil.Process().children(recursive=True) if child.name() == "Xvnc"]
    assert found
    for child in found:
        child.kill()


async def test_an_older_model_sees_a_large_screen_scaled_and_still_hits(api: MessagesApi) -> None:
    provider = await make_provider(SETTINGS, server_id=uuid.uuid4().hex, kind="local")
    local_desktop = await provider.acquire("test", DesktopOptions(size=Size(1920, 1080)))
    client = ModelClient(base_url=api.base_url, api_key=api.key)
    options = AgentOptions(model="claude-haiku-4-5", image_format="webp")
    agent = Agent(desktop=local_desktop, options=options, gate=Gate("never"), client=client)
    width, height = local_desktop.size
    assert max(width, height) <= 1568 and width / height == pytest.approx(1920 / 1080, rel=0.02)
    calls = [legacy("mouse_move", coordinate=[width - 1, height - 1]), legacy("cursor_position"), legacy("screenshot")]
    api.policy = Script([reply(*calls)], end="Seen.")
    found = await play(agent)
    finished = of(found, ToolFinished)
    assert finished[1].text == f"X={width - 1},Y={height - 1}"
    assert (finished[2].width, finished[2].height, finished[2].media_type) == (width, height, "image/webp")
    assert isinstance(found[-1], TurnFinished)
    await agent.aclose()
    await client.aclose()
    await provider.stop()
