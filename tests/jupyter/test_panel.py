"""The panel's Python side: what is synced and saved, what the kernel relays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import ipywidgets
import pytest

from cambio_lab.client import portal
from cambio_lab.client.session import Session
from cambio_lab.client.workbench import Workbench
from cambio_lab.jupyter.follower import Follower, follow
from cambio_lab.jupyter.panel import DesktopView, Relay

from ..client.small_server import TOKEN, SmallServer, endless
from ..live_server import LiveServer

Sent = list[tuple[dict[str, Any], list[bytes]]]


@pytest.fixture
async def session(lab: Workbench) -> Session:
    return await lab.create_session("Panelled")


@pytest.fixture
async def relay(session: Session) -> AsyncIterator[tuple[Relay, Sent]]:
    sent: Sent = []
    found = Relay(session, lambda message, buffers: sent.append((message, buffers)))
    yield found, sent
    await portal.call(found._close({}))


async def until(condition: Callable[[], Any], timeout: float = 5) -> Any:
    async with asyncio.timeout(timeout):
        while not (found := condition()):  # noqa: ASYNC110 - it happens on another loop
            await asyncio.sleep(0.01)
    return found


def test_no_trait_and_no_state_holds_the_token(session: Session) -> None:
    view = DesktopView(session)
    assert TOKEN not in json.dumps(view.get_state(), default=str)
    state = ipywidgets.Widget.get_manager_state()
    assert TOKEN not in json.dumps(state, default=str)
    assert view.session_id == session.id and view.base_url_hint == "/" and view.mode == "panel"
    assert view.relay, "this server did not start our kernel, so its page is another one"
    view.close()


async def test_a_panel_is_static_too(session: Session) -> None:
    await session.send("remember me")
    view = DesktopView(session)
    data, _ = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "remember me" in data["text/html"] and "remember me" in data["text/plain"]
    view.close()


async def test_relay_answers_rest_for_its_own_session_only(relay: tuple[Relay, Sent], session: Session) -> None:
    found, sent = relay
    for number, path in enumerate([f"sessions/{session.id}", f"sessions/{session.id}/screenshot?width=320"]):
        found.receive({"kind": "rest", "id": number, "method": "GET", "path": path})
        await until(lambda: len(sent) == number + 1)  # noqa: B023
    (described, _), (shot, buffers) = sent
    assert described["status"] == 200 and described["body"]["name"] == "Panelled"
    assert shot["content_type"].startswith("image/png") and buffers[0].startswith(b"\x89PNG")
    sent.clear()
    hostile = [
        "sessions",
        "sessions/other",
        f"sessions/{session.id}x",
        f"sessions/{session.id}/../other",
        f"sessions/{session.id}/%2e%2e/other",
        f"/sessions/{session.id}/../../api/kernels",
        "http://evil/",
    ]
    for path in hostile:
        found.receive({"kind": "rest", "id": path, "method": "GET", "path": path})
    await until(lambda: len(sent) == len(hostile))
    assert {message["status"] for message, _ in sent} == {403}
    assert TOKEN not in str(sent)


async def test_relay_follows_events_and_sends(relay: tuple[Relay, Sent], session: Session, server: SmallServer) -> None:
    found, sent = relay
    server.script = endless
    found.receive({"kind": "open", "after": None})
    await until(lambda: sent and sent[0][0]["message"]["metadata"]["event"] == "snapshot")
    found.receive({"kind": "send", "message": {"content": "from the panel", "metadata": {}}})
    await until(lambda: any(m["message"].get("type") == "agent_delta" for m, _ in sent if m["kind"] == "event"))
    small = server.sessions[session.id]
    for reader in list(small.readers):
        await reader.close()
    await until(lambda: [m for m, _ in sent if m["kind"] == "up"])
    found.receive({"kind": "send", "message": {"type": "stop"}})
    last = await until(lambda: [m for m, _ in sent if m.get("message", {}).get("type") == "agent_response"])
    assert last[0]["message"]["metadata"]["stopped"]
    numbers = [m["message"]["sequence"] for m, _ in sent if m["kind"] == "event" and m["message"]["type"] != "status"]
    assert numbers == sorted(set(numbers)), "an event was missed or came twice"


async def test_relay_frames_and_modules(relay: tuple[Relay, Sent]) -> None:
    found, sent = relay
    found.receive({"kind": "frame", "width": 800})
    message, buffers = (await until(lambda: sent))[0]
    assert (message["kind"], message["width"], message["height"]) == ("frame", 640, 400) and len(buffers) == 1
    found.receive({"kind": "frame", "width": 800})
    await until(lambda: len(sent) == 2)
    assert sent[1][0] == {"kind": "frame", "same": True}
    for name in ("panel.css", "../../settings.py", "secrets"):
        found.receive({"kind": "module", "name": name})
    await until(lambda: len(sent) == 3)
    assert sent[2][0]["name"] == "panel.css" and sent[2][0]["text"]


class Output:
    """A cell's output that can be replaced."""

    def __init__(self) -> None:
        self.contents: list[dict[str, Any]] = []

    def update(self, content: dict[str, Any], *, raw: bool) -> None:
        self.contents.append(content)


async def test_the_record_of_a_session_that_has_ended_is_whole(live: LiveServer) -> None:
    async with Workbench(live.url, live.token) as lab:
        async with await lab.create_session("Over", model="demo", ask_user=True) as session:
            session.on_question(lambda question: "the red one")
            await session.send('ask_user {"question": "Which?"}')
        again, output = await lab.session(session.id), Output()
        await portal.call(follow(again, output))
        await again.detach()
    assert output.contents[0]["text/plain"].startswith("Record of Over: 1 turn\n")
    for words in ("Your message names the function ask_user, so I call it.", "The user answered: the red one"):
        assert output.contents[0]["text/html"].count(words) == 1


async def test_the_record_follows_turns_that_the_kernel_did_not_send(lab: Workbench, server: SmallServer) -> None:
    session = await lab.create_session("Chatted")
    await session.send("before the panel")
    output = Output()
    follower = Follower(lab.address, lab.rest, session.id, "Chatted")
    await portal.call(follower.add(output))
    await until(lambda: output.contents and "before the panel" in output.contents[-1]["text/plain"])
    async with Workbench(server.url, TOKEN) as browser:
        await (await browser.session(session.id)).send("from the browser")
    await until(lambda: "from the browser" in output.contents[-1]["text/plain"])
    page = output.contents[-1]["text/html"]
    assert page.startswith("<details><summary>Record of Chatted: 2 turns") and page.count("<img ") == 5
    await portal.call(follower.close())
