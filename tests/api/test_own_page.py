"""The documented limits are for API clients: a page elsewhere cannot use them up, the product's own page has none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import httpx2
import pytest
from playwright.async_api import Browser, BrowserContext, Response, async_playwright

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.live_server import LiveServer

from .conftest import check_envelope
from .test_hostile_page import evil_origin  # noqa: F401  (a fixture)

Start = Callable[..., Any]
LIMITS = {
    "CAMBIO_LAB_RATE_GENERAL": "20/hour",
    "CAMBIO_LAB_RATE_CREATE": "2/hour",
    "CAMBIO_LAB_RATE_WEBSOCKET": "2/hour",
    "CAMBIO_LAB_RATE_REFUSED": "30/hour",
}
"""A fifth of the documented numbers, so that few requests and desktops reach them, in windows that no test outlasts."""
FLOOD = """async ([base, ws, id]) => {
  const closed = socket => new Promise(done => { socket.onclose = done; socket.onerror = done; });
  for (let number = 0; number < 3; number++) {
    await closed(new WebSocket(`${ws}/ws/${id}`));
    await closed(new WebSocket(`${ws}/ws`));
  }
  const paths = ['/sessions', '/sessions/' + id, '/cambio/docs', '/sessions/' + id + '/history'];
  for (let number = 0; number < 25; number++) {
    const path = base + paths[number % paths.length];
    await fetch(path, { mode: 'no-cors', credentials: 'include' }).catch(() => null);
    await fetch(path, { method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}' }).catch(() => null);
  }
}"""
USE = """async ([id]) => {
  const config = JSON.parse(document.getElementById('cambio-config').textContent);
  const xsrf = decodeURIComponent(/(?:^|;\\s*)_xsrf=([^;]*)/.exec(document.cookie)?.[1] ?? '');
  const headers = { 'Content-Type': 'application/json', 'X-XSRFToken': xsrf };
  const call = async (method, path, body) => (await fetch(config.base_url + path, { method, headers, body })).status;
  const answers = [await call('GET', 'sessions'), await call('POST', `sessions/${id}/stop`, '{}')];
  const socket = new WebSocket(location.origin.replace('http', 'ws') + config.ws_path);
  answers.push(await new Promise(done => {
    socket.onmessage = event => done(JSON.parse(event.data).type);
    socket.onerror = () => done('refused');
  }));
  const made = await fetch(config.base_url + 'sessions', { method: 'POST', headers, body: '{}' });
  answers.push(made.status, await call('DELETE', 'sessions/' + (await made.json()).id));
  return answers;
}"""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield found
        await found.close()


async def logged_in(browser: Browser, server: LiveServer, session: str) -> BrowserContext:
    """A browser that holds the server's cookies."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{server.url}/vnc/{session}" + (f"?token={server.token}" if server.token else ""))
    await page.close()
    return context


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["token", "no token"])
async def test_a_page_elsewhere_cannot_use_up_the_limits(
    start_server: Start,
    browser: Browser,
    evil_origin: str,  # noqa: F811
    mode: str,
) -> None:
    server: LiveServer = await start_server(*(["--no-token"] if mode == "no token" else []), limits=True, env=LIMITS)
    async with server.client() as client:
        session = (await client.post("/sessions", json={})).json()["id"]
        context = await logged_in(browser, server, session)
        used = int((await client.get("/sessions")).headers["x-ratelimit-remaining"])
        evil = await context.new_page()
        await evil.goto(evil_origin)
        await evil.evaluate(FLOOD, [server.url, server.ws_url, session])
        # A program keeps what it had, and the user's own page can do everything.
        answer = await client.get("/sessions")
        assert (answer.status_code, int(answer.headers["x-ratelimit-remaining"])) == (200, used - 1)
        async with aiohttp.ClientSession(headers=server.headers) as sockets:
            for _ in range(2):
                async with sockets.ws_connect(f"{server.ws_url}/ws/{session}") as socket:
                    assert (await socket.receive_json())["type"] == "status"
        own = await context.new_page()
        await own.goto(f"{server.url}/vnc/{session}")
        assert await own.evaluate(USE, [session]) == [200, 200, "status", 200, 200]


@pytest.mark.browser
@pytest.mark.parametrize("mode", ["token", pytest.param("no token", marks=pytest.mark.slow)])
async def test_six_tabs_and_a_reload_are_never_refused(start_server: Start, browser: Browser, mode: str) -> None:
    server: LiveServer = await start_server(*(["--no-token"] if mode == "no token" else []), limits=True, env=LIMITS)
    async with server.client() as client:
        session = (await client.post("/sessions", json={})).json()["id"]
    context = await logged_in(browser, server, session)
    refused: list[str] = []

    def note(response: Response) -> None:
        if response.status == 429:
            refused.append(response.url)

    context.on("response", note)
    pages = [await context.new_page() for _ in range(6)]
    sockets: list[str] = []
    for page in pages:
        page.on("websocket", lambda socket: sockets.append(socket.url.removeprefix(server.ws_url)))
    for _ in range(2):
        await asyncio.gather(*(page.goto(f"{server.url}/vnc/{session}") for page in pages))
        for page in pages:
            await page.locator(".jp-Cambio-viewer .jp-Cambio-desktop[data-phase=open]").wait_for()
        assert sorted(path.partition("?")[0] for path in sockets) == [f"/vnc/{session}"] * 6 + ["/ws"] * 6
        sockets.clear()
    for page in pages[:4]:  # four creations
        assert await page.evaluate(USE, [session]) == [200, 200, "status", 200, 200]
    assert refused == [] and " 429 " not in server.log()


async def test_a_cookie_with_the_xsrf_header_is_the_own_page(start_server: Start) -> None:
    server: LiveServer = await start_server(limits=True, env=LIMITS)
    async with server.client() as client:
        session = (await client.post("/sessions", json={})).json()["id"]
    async with httpx2.AsyncClient(base_url=server.url) as page:
        await page.get(f"/vnc/{session}", params={"token": server.token})
        headers = {"X-XSRFToken": page.cookies["_xsrf"]}
        for _ in range(25):
            assert (await page.get("/sessions", headers=headers)).status_code == 200
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in page.cookies.items())}
        async with aiohttp.ClientSession(headers=cookie) as sockets:
            for _ in range(4):
                async with sockets.ws_connect(f"{server.ws_url}/ws", origin=server.url):
                    pass
        # A script that has the cookie alone is an API client, and a wrong header does not make it a page.
        for _ in range(20):
            last = await page.get("/sessions", headers={"X-XSRFToken": "2|00000000|00|0"})
        check_envelope(last, 429)


async def test_stop_and_delete_pass_when_the_limit_is_reached(start_server: Start) -> None:
    server: LiveServer = await start_server(limits=True, env=LIMITS)
    async with server.client() as client:
        session = (await client.post("/sessions", json={})).json()["id"]
        async with aiohttp.ClientSession(headers=server.headers) as sockets:
            socket = await sockets.ws_connect(f"{server.ws_url}/ws/{session}")
            await socket.send_json({"content": "Count to a thousand."})
            while (await client.get("/sessions")).status_code != 429:
                pass
            await socket.send_json({"type": "stop"})
            async with asyncio.timeout(20):
                while (await socket.receive_json())["type"] != "agent_response":
                    pass
            await socket.close()
        stopped = await client.post(f"/sessions/{session}/stop")
        assert stopped.status_code == 200 and stopped.headers["x-ratelimit-remaining"] == "0"
        assert stopped.json() == {"session_id": session, "state": "idle"}
        wrong = await client.post(f"/sessions/{session}/stop", json={"message_id": "msg-of-before"})
        check_envelope(wrong, 409)
        assert (await client.delete(f"/sessions/{session}")).status_code == 200
        check_envelope(await client.get(f"/sessions/{session}"), 429)


async def test_refused_requests_have_a_limit_of_their_own(start_server: Start) -> None:
    server: LiveServer = await start_server(limits=True, env={"CAMBIO_LAB_RATE_REFUSED": "20/minute"})
    async with httpx2.AsyncClient(base_url=server.url) as unknown, server.client() as client:
        statuses = [(await unknown.delete("/sessions/x")).status_code for _ in range(25)]
        assert statuses == [401] * 20 + [429] * 5
        answer = await client.get("/sessions")
        assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (200, "99")
