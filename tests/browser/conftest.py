"""One JupyterLab with Docker desktops for all browser tests, and a fresh page for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.live_server import LiveServer
from tests.messages_api import MessagesApi

from .lab import PATIENCE, ROOT, lab_server

RESULTS = ROOT / "test-results"
MakeSession = Callable[..., Awaitable[dict[str, Any]]]
FAILED = pytest.StashKey[bool]()
STATE = """async () => {
  const within = promise => Promise.race([promise, new Promise(done => setTimeout(done, 2000, 'not within 2 s'))])
  const frame = await within(new Promise(done => requestAnimationFrame(() => done('drawn'))))
  const answer = await within(fetch('/user/ana/health').then(response => response.status, String))
  const asked = performance.getEntriesByType('resource').slice(-30)
  const requests = asked.map(one => `${Math.round(one.startTime)}+${Math.round(one.duration)} ${one.name.slice(-70)}`)
  const panels = [...document.querySelectorAll('.jp-Cambio-panel')].map(panel => panel.innerText.slice(-1500))
  return JSON.stringify({at: performance.now(), hidden: document.hidden, frame, answer, panels, requests}, null, 1)
}"""
"""What a page that failed looks like from inside: whether it draws, whether the server answers, what it asked for."""
expect.set_options(timeout=PATIENCE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        found = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield found
        await found.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """JupyterLab below a JupyterHub-like base URL: what works there works at ``/`` too."""
    server = lab_server(tmp_path_factory.mktemp("lab"), base_url="/user/ana/")
    await server.start()
    yield server
    await server.stop(timeout=60)


@pytest.fixture(scope="session")
def service() -> Iterator[MessagesApi]:
    with MessagesApi() as api:
        yield api


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def limited(service: MessagesApi, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """A server with a local desktop and the stand-in that repeats what it is told."""
    env = {**service.environment, "CAMBIO_LAB_APPROVAL": "never"}
    server = lab_server(tmp_path_factory.mktemp("limited"), desktop="local", model="claude-sonnet-5-5", env=env)
    await server.start()
    yield server
    await server.stop(timeout=60)


@pytest.fixture(scope="session")
def notebooks(lab: LiveServer) -> Path:
    """Where the server's notebooks are."""
    assert lab.cwd is not None
    return lab.cwd


@pytest_asyncio.fixture(loop_scope="session")
async def client(lab: LiveServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with lab.client() as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def make_session(client: httpx2.AsyncClient) -> AsyncIterator[MakeSession]:
    """``await make_session("Name", approval="never")``; ended after the test."""
    made: list[str] = []

    async def make(name: str, **config: Any) -> dict[str, Any]:
        answer = await client.post("/sessions", json={"name": name, "config": {"model": "demo", **config}})
        session: dict[str, Any] = answer.raise_for_status().json()
        made.append(session["id"])
        return session

    yield make
    for session_id in made:
        await client.delete(f"/sessions/{session_id}")


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """A page of its own; an exception of ours that nobody caught fails the test, and a failure leaves a screenshot."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    found = await context.new_page()
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(f"{error} {error.stack}"))
    yield found
    if request.node.stash.get(FAILED, False):
        print(await found.evaluate(STATE))  # before the screenshot, which makes the browser draw
        RESULTS.mkdir(exist_ok=True)
        await found.screenshot(path=RESULTS / f"{request.node.name}.png")
    await context.close()
    ours = [error for error in errors if "cambio" in error]
    assert not ours, ours
