"""Two users of one JupyterHub: the panel behind its login, nothing of each other's, and idle culling."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import docker
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from .conftest import RESULTS
from .hub import Hub, call, install_proxy, log_in, say
from .lab import LIVE, ask, idle

pytestmark = [
    *(pytest.mark.browser, pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(600)),
    pytest.mark.asyncio(loop_scope="session"),
]
StartHub = Callable[..., Awaitable[Hub]]
Login = Callable[[Hub, str], Awaitable[Page]]
USERS = ("ana", "ben")


@pytest_asyncio.fixture(loop_scope="session")
async def start_hub(docker_host: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[StartHub]:
    proxy = await install_proxy(request.config.cache.mkdir("hub"))
    hubs: list[Hub] = []

    async def start(idle: int, **environment: str) -> Hub:
        hub = Hub(tmp_path, proxy, idle, CAMBIO_LAB_DESKTOP="docker", CAMBIO_LAB_MODEL="demo", **environment)
        hubs.append(hub)
        await hub.start()
        return hub

    yield start
    for hub in hubs:
        await hub.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def login(browser: Browser) -> AsyncIterator[Login]:
    """A page of a browser profile of its own, logged in."""
    contexts = []

    async def enter(hub: Hub, user: str) -> Page:
        context = await browser.new_context(viewport={"width": 1440, "height": 900})
        contexts.append(context)
        page = await context.new_page()
        await log_in(page, hub, user)
        return page

    yield enter
    for context in contexts:
        await context.close()


async def create_in_the_panel(page: Page) -> str:
    """A session as a person makes it; its id."""
    await page.locator('[data-id="cambio-lab-agents"]').click(timeout=60_000)
    await page.locator(".jp-Cambio-agents").get_by_role("button", name="New agent session").first.click()
    await page.locator(".jp-Dialog").get_by_role("button", name="Create").click()
    await page.locator(LIVE).wait_for(timeout=60_000)
    found = await page.locator(".jp-Cambio-agents .jp-Cambio-agent").get_attribute("data-session-id")
    assert found
    return found


async def test_each_user_has_sessions_containers_and_runs_of_their_own(start_hub: StartHub, login: Login) -> None:
    hub = await start_hub(idle=600)
    pages = {user: await login(hub, user) for user in USERS}
    made = {user: await create_in_the_panel(page) for user, page in pages.items()}
    RESULTS.mkdir(exist_ok=True)
    for user, page in pages.items():
        await ask(page, f"Hello from {user}", ".jp-Cambio-document")
        await idle(page, ".jp-Cambio-document")
        await page.screenshot(path=RESULTS / f"hub-{user}.png")

    engine = docker.from_env()
    servers = {}
    for user, other in (USERS, USERS[::-1]):
        page = pages[user]
        status, listed = await call(page, "GET", f"/user/{user}/sessions")
        assert (status, [row["id"] for row in listed["sessions"]]) == (200, [made[user]])
        assert (await call(page, "GET", f"/user/{user}/sessions/{made[user]}/run"))[0] == 200
        for path in (f"sessions/{made[other]}", f"sessions/{made[other]}/run", f"vnc/{made[other]}"):
            assert (await call(page, "GET", f"/user/{user}/{path}"))[0] == 404
            assert (await call(page, "GET", f"/user/{other}/{path}"))[0] == 401
        _, session = await call(page, "GET", f"/user/{user}/sessions/{made[user]}")
        container = engine.containers.get(session["container_id"])
        servers[user] = container.labels["org.cambio-lab.server"]
        assert servers[user] == (hub.folder / f"home/{user}/.local/share/jupyter/cambio_lab/server-id").read_text()
    assert servers["ana"] != servers["ben"]
    foreign = await pages["ana"].context.new_page()
    answer = await foreign.goto(f"{hub.url}/user/ben/lab")  # by way of the Hub's own login
    assert answer is not None and answer.status == 403

    for user, desktops in (("ana", 2), ("ben", 4)):  # as the configuration says
        answers = [await call(pages[user], "POST", f"/user/{user}/sessions", {}) for _ in range(desktops)]
        assert [status for status, _ in answers] == [200] * (desktops - 1) + [503]
        assert f"All {desktops} desktops" in answers[-1][1]["message"]

    await hub.stop()
    for server in servers.values():
        left = engine.containers.list(all=True, filters={"label": f"org.cambio-lab.server={server}"})
        assert left == [], hub.log()
    engine.close()


async def test_the_culler_stops_an_idle_server_and_leaves_an_agent_at_work(start_hub: StartHub, login: Login) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # a model service that accepts, and never answers
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    hub = await start_hub(idle=12, ANTHROPIC_BASE_URL=address, ANTHROPIC_API_KEY="key")
    for user in USERS:
        page = await login(hub, user)
        status, session = await call(page, "POST", f"/user/{user}/sessions", {"config": {"model": "claude-opus-4-8"}})
        assert status == 200, session
        if user == "ana":  # asked, and the model thinks for as long as this test takes
            await say(page, f"/user/{user}/ws/{session['id']}", "Hi")
        await page.close()
    begin = time.monotonic()
    async with asyncio.timeout(90):
        while await hub.running("ben"):
            assert await hub.running("ana"), hub.log()
            await asyncio.sleep(1)
    print(f"the idle server was stopped after {time.monotonic() - begin:.0f} s")
    await asyncio.sleep(30)  # what is shown is that nothing happens
    assert await hub.running("ana"), hub.log()
    page = await login(hub, "ana")
    status, listed = await call(page, "GET", "/user/ana/sessions")
    assert listed["sessions"][0]["status"] == "active"
    assert (await call(page, "POST", f"/user/ana/sessions/{listed['sessions'][0]['id']}/stop"))[0] == 200
    await page.close()
    async with asyncio.timeout(90):
        while await hub.running("ana"):  # noqa: ASYNC110
            await asyncio.sleep(1)
    silent.close()
