"""Hostile words, a full rate limit, a server elsewhere: the panel stays harmless and says what is happening."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, WebSocketRoute, expect

from tests.live_server import LiveServer
from tests.messages_api import MessagesApi, Script, reply
from tests.messages_api.failures import SseError

from .conftest import MakeSession
from .lab import ask, idle, kernel_ready, lab_server, notebook, open_lab, run_cell, session_of, until, violations

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

HOSTILE = """Look: <img src=x onerror="window.pwned=1"><script>window.pwned=2</script>
<svg/onload=window.pwned=3><iframe src="javascript:parent.pwned=4"></iframe>
[click me](javascript:window.pwned=5) [or me](data:text/html,<script>alert(1)</script>) ![track](https://evil.example/?s)
\x1b[31mred\x1b[0m \x1b]8;;javascript:window.pwned=6\x07link\x1b]8;;\x07 \u202eoverride
[a real link](https://example.org/) **bold**

"""


async def test_the_panel_says_what_isolates_a_desktop(page: Page, limited: LiveServer, tmp_path: Path) -> None:
    """In the words of ``/health`` and ``doctor``; the tests of the notebook's panel look at a container's."""
    sealed = lab_server(tmp_path, desktop="sandbox", model="demo")
    await sealed.start()
    try:
        for server, words in ((limited, "local (not isolated)"), (sealed, "sandbox (isolated)")):
            await chat_alone(page, server, await session_of(server))
            await expect(page.locator(".jp-Cambio-isolation")).to_have_text(words)
            async with server.client() as client:
                assert (await client.get("/health")).json()["services"]["desktop"] == words
    finally:
        await sealed.stop()


WATCH_FRAMES = (
    "(() => { window.longest = 0; let last = performance.now(); const tick = () => { const now = performance.now();"
    " window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(tick) }; tick() })()"
)
"""Notes the longest time between two frames in ``window.longest``."""


async def test_a_hostile_answer_of_a_megabyte_is_harmless(
    page: Page, limited: LiveServer, service: MessagesApi
) -> None:
    service.policy = Script([reply(HOSTILE + "[word](" * 1000 + "x " * 4000)])
    session_id = await session_of(limited, max_cost_usd=1000)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await open_lab(page, limited)
    await page.evaluate("id => jupyterapp.commands.execute('cambio-lab:open-desktop', {id})", session_id)
    await page.locator(".jp-Cambio-composer textarea").wait_for()
    await page.evaluate(WATCH_FRAMES)
    await ask(page, "speak")
    answer = page.locator(".jp-Cambio-reply").last
    await expect(answer).to_contain_text("Look:", timeout=60_000)
    await idle(page, timeout=120_000)
    assert await page.evaluate("() => window.pwned") is None
    assert await answer.locator("img, script, svg, iframe, object, form, style").count() == 0
    links = await answer.locator("a").evaluate_all("links => links.map(link => link.href)")
    assert links == ["https://example.org/"]
    assert not [url for url in requests if "evil.example" in url]
    words = await answer.inner_text()
    assert "\x1b" not in words and "\u202e" not in words and "red" in words
    assert await answer.locator("*").count() < 5000
    assert await page.evaluate("() => window.longest") < 5000


async def test_a_megabyte_in_the_history_is_shown_without_a_pause(page: Page, limited: LiveServer) -> None:
    """The stand-in would stream it in 80,000 pieces: the history's answer is replaced on its way to the page."""
    session_id = await session_of(limited)
    event: dict[str, Any] = {"type": "agent_response", "timestamp": "2024-01-15T10:31:05Z", "sequence": 1}
    event |= {"metadata": {"message_id": "msg-1"}, "content": HOSTILE + "[word](" * 20_000 + "x " * 450_000}

    async def session_with_one(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(json={**await answer.json(), "sequence": 1})

    async def answer_with(route: Route) -> None:
        await route.fulfill(json={"events": [event], "has_next": False, "last_sequence": 1})

    await page.route(f"**/sessions/{session_id}", session_with_one)
    await page.route("**/events?*", answer_with)
    await chat_alone(page, limited, session_id)
    answer = page.locator(".jp-Cambio-reply").last
    await expect(answer).to_contain_text("Look:")
    assert await page.evaluate("() => window.pwned") is None
    assert await answer.locator("*").count() < 5000
    await answer.get_by_role("button", name="Show the rest").click()
    await expect(answer.locator(".jp-Cambio-rest")).to_be_visible()
    assert await answer.evaluate("element => element.textContent.length") > 1_000_000
    longest = await page.evaluate("() => window.longest")
    print(f"longest frame with a megabyte of hostile text: {longest:.0f} ms")
    assert longest < 2000


async def test_text_of_a_reply_that_breaks_off_is_taken_back(
    page: Page, limited: LiveServer, service: MessagesApi
) -> None:
    """The service fails in the middle of a streamed reply; what was shown of it disappears, and comes once."""
    words = " ".join(f"word{number}" for number in range(60))
    service.policy = Script([reply(words)])
    service.pace = 0.01  # the second try is seen as it comes, too
    session_id = await session_of(limited, max_cost_usd=1000)
    await chat_alone(page, limited, session_id)
    await page.evaluate(
        "() => { window.lengths = []; new MutationObserver(() => window.lengths.push("
        "document.querySelector('.jp-Cambio-draft')?.textContent.length ?? 0))"
        ".observe(document.querySelector('.jp-Cambio-log'), {subtree: true, childList: true, characterData: true}) }"
    )
    service.fail(SseError(after=20))
    await ask(page, "speak", ".jp-Cambio-root")
    await expect(page.locator(".jp-Cambio-reply:not(.jp-Cambio-draft)")).to_have_text(words)
    service.pace = 0.0
    lengths = await page.evaluate("() => window.lengths")
    pairs = enumerate(itertools.pairwise(lengths))
    assert any(before > after < max(lengths[at + 1 :]) for at, (before, after) in pairs), lengths


async def test_a_message_written_before_the_socket_is_open_arrives_once(
    page: Page, limited: LiveServer, service: MessagesApi
) -> None:
    service.policy = Script([reply("Here I am.")])
    session_id = await session_of(limited, max_cost_usd=1000)
    opened = asyncio.Event()

    async def slow(route: WebSocketRoute) -> None:
        await opened.wait()
        route.connect_to_server()

    await page.route_web_socket("**/ws", slow)
    await chat_alone(page, limited, session_id)
    box = page.locator(".jp-Cambio-composer textarea")
    await box.fill("early")
    await box.press("Enter")
    await expect(page.locator(".jp-Cambio-outgoing")).to_contain_text("early")
    await expect(page.locator(".jp-Cambio-outgoing")).to_contain_text("Waiting for the connection")
    await expect(page.locator(".jp-Cambio-user")).to_have_count(0)
    opened.set()
    await expect(page.locator(".jp-Cambio-user")).to_have_text("early")
    await expect(page.locator(".jp-Cambio-outgoing")).to_have_count(0)
    await expect(page.locator(".jp-Cambio-reply:not(.jp-Cambio-draft)")).to_have_text("Here I am.")
    assert len(await page.locator(".jp-Cambio-user").all()) == 1


async def test_a_message_during_a_turn_waits_in_sight_and_can_be_taken_back(
    page: Page, limited: LiveServer, service: MessagesApi
) -> None:
    service.policy = Script([reply(" ".join(f"word{number}" for number in range(400)))])
    service.pace = 0.05
    session_id = await session_of(limited, max_cost_usd=1000)
    await chat_alone(page, limited, session_id)
    await ask(page, "speak", ".jp-Cambio-root")
    box = page.locator(".jp-Cambio-composer textarea")
    for words in ("only the first five", "never mind"):
        await box.fill(words)
        await box.press("Enter")
        await page.locator(".jp-Cambio-queued", has_text=words).wait_for()
    await page.locator(".jp-Cambio-queued", has_text="never mind").get_by_role("button", name="Take back").click()
    await expect(page.locator(".jp-Cambio-queued")).to_have_count(1)
    await expect(page.locator(".jp-Cambio-note", has_text="not delivered")).to_be_visible()
    await expect(page.locator(".jp-Cambio-user")).to_have_text(["speak"])
    await page.get_by_role("button", name="Stop").first.click()  # and not the turn of the queued message
    await expect(page.locator(".jp-Cambio-remark").last).to_have_text("Stopped")
    service.pace = 0.0


async def test_a_stop_works_while_the_socket_is_down(page: Page, limited: LiveServer, service: MessagesApi) -> None:
    service.policy = Script([reply(" ".join(f"word{number}" for number in range(2000)))])
    service.pace = 0.05
    session_id = await session_of(limited, max_cost_usd=1000)
    sockets: list[WebSocketRoute] = []
    down = False

    async def line(route: WebSocketRoute) -> None:
        if down:
            await route.close(code=1011)
            return
        route.connect_to_server()
        sockets.append(route)

    await page.route_web_socket("**/ws", line)
    await chat_alone(page, limited, session_id)
    await ask(page, "speak", ".jp-Cambio-root")
    down = True
    await sockets[-1].close(code=1011)
    await expect(page.locator(".jp-Cambio-notices")).to_contain_text("connection")
    await page.get_by_role("button", name="Stop").first.click()
    async with limited.client() as client:
        await until(client, session_id, "idle", 5)
    down = False
    await expect(page.locator(".jp-Cambio-remark").last).to_have_text("Stopped", timeout=30_000)
    service.pace = 0.0


async def chat_alone(page: Page, server: LiveServer, session_id: str) -> None:
    """The chat of a session on a page of the server that has nothing else."""
    await page.goto(f"{server.url}/vnc/{session_id}?token={server.token}")
    await page.evaluate(WATCH_FRAMES)
    await page.evaluate(
        "async id => { const panel = await import('/cambio/static/panel.js');"
        " const element = document.createElement('div'); document.body.replaceChildren(element);"
        " const options = {address: panel.makeAddress('/'), sessionId: id, mode: 'chat', height: 700};"
        " await panel.mountPanel(element, options) }",
        session_id,
    )


async def test_a_full_rate_limit_is_waited_for_as_told(page: Page, limited: LiveServer) -> None:
    """As behind a proxy with limits of its own; this server has none for its own page."""
    session_id = await session_of(limited)
    refusal = {"status": 429, "headers": {"Retry-After": "5"}, "body": "{}"}
    await page.add_init_script(
        "const Real = WebSocket; window.full = true; window.WebSocket = class extends Real {"
        " constructor(url) { super(window.full && url.endsWith('/ws') ? url + '/refused' : url) } }"
    )
    await page.route(f"{limited.url}/ws", lambda route: route.fulfill(**refusal))
    await page.goto(f"{limited.url}/vnc/{session_id}?token={limited.token}")
    notice = page.locator(".jp-Cambio-notices .jp-Cambio-notice")
    await expect(notice.first).to_contain_text("waiting as the server asks")
    await expect(notice.first).to_contain_text("Next try in")
    await page.evaluate("window.full = false")
    await expect(page.locator(".jp-Cambio-notices .jp-Cambio-notice")).to_have_count(0, timeout=45_000)
    assert await violations(page, ".jp-Cambio-viewer") == []


async def test_an_unknown_session_is_not_asked_for_again(page: Page, limited: LiveServer) -> None:
    await page.goto(f"{limited.url}/lab?token={limited.token}")
    await page.locator("#jp-main-dock-panel").wait_for()  # JupyterLab would take the page's body back
    asked: list[str] = []
    page.on("websocket", lambda socket: asked.append(socket.url) if "unknown" in socket.url else None)
    await page.evaluate(
        "async base => { const panel = await import(base + '/cambio/static/panel.js');"
        " const element = document.createElement('div'); document.body.replaceChildren(element);"
        " const options = {address: panel.makeAddress('/'), sessionId: 'unknown', mode: 'panel', height: 500};"
        " await panel.mountPanel(element, options) }",
        limited.url,
    )
    await expect(page.locator(".jp-Cambio-notice", has_text="does not exist")).to_be_visible()
    await expect(page.locator(".jp-Cambio-veil", has_text="does not exist")).to_be_visible()
    await expect(page.get_by_role("button", name="Try now")).to_have_count(0)
    await expect(page.locator(".jp-Cambio-status")).to_have_text("Not found")
    await expect(page.get_by_text("Loading the conversation")).to_have_count(0)
    await expect(page.locator(".jp-Cambio-composer textarea")).to_be_disabled()
    before = len(asked)
    await page.wait_for_timeout(1500)
    assert len(asked) == before <= 2, asked


@pytest.mark.docker
async def test_where_the_server_is_elsewhere_the_kernel_relays(
    page: Page, lab: LiveServer, notebooks: Path, make_session: MakeSession
) -> None:
    session = await make_session("Relayed", approval="never")
    notebook(
        notebooks / "relay.ipynb",
        "from cambio_lab import Workbench\nfrom cambio_lab.jupyter.panel import DesktopView\n"
        f"lab = Workbench()\nsession = await lab.session('{session['id']}')\nDesktopView(session, relay=True)",
    )
    await open_lab(page, lab, "tree/relay.ipynb")
    await kernel_ready(page)
    await run_cell(page, 0)
    await expect(page.locator(".jp-Cambio-notice").first).to_contain_text("relayed by the kernel")
    frame = page.locator(".jp-Cambio-frame")
    await page.wait_for_function("() => document.querySelector('.jp-Cambio-frame')?.naturalWidth > 200")
    before = await frame.get_attribute("src")
    await ask(page, "over the kernel")
    await idle(page)
    await expect(page.locator(".jp-Cambio-reply").last).to_contain_text("demo model")
    await expect(frame).not_to_have_attribute("src", str(before))
    await page.wait_for_function(
        "() => [...document.querySelectorAll('.jp-Cambio-timeline img')].some(i => i.naturalWidth > 200)"
    )
    await expect(page.get_by_role("button", name="Take control")).to_have_count(0)
