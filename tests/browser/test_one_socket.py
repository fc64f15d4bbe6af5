"""One socket carries all sessions of a page, and nothing is lost or done late when the network is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, WebSocket, expect

from tests.live_server import LiveServer
from tests.messages_api import MessagesApi, Script, reply

from .lab import ask, command, idle, session_of, state

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
WORDS = " ".join(f"word{number}" for number in range(150))


class Network:
    """A TCP forwarder to a server; while ``dead`` it accepts everything and passes nothing on."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._alive = asyncio.Event()

    async def start(self) -> None:
        self._alive.set()
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def die(self) -> None:
        self._alive.clear()

    async def come_back(self) -> None:
        """As with a new address: no old connection lives, and what was in flight is gone."""
        await self._cut()
        self._alive.set()

    async def stop(self) -> None:
        self._listener.close()
        await self._cut()

    async def _cut(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            await self._alive.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.server.port)
            writers.append(back)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass(reader, back))
                both.create_task(self._pass(there, writer))
        except (OSError, ExceptionGroup):
            pass
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._alive.wait()
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()


@pytest_asyncio.fixture(loop_scope="session")
async def network(limited: LiveServer) -> AsyncIterator[Network]:
    found = Network(limited)
    await found.start()
    yield found
    await found.stop()


async def lab_with(page: Page, url: str, *sessions: str) -> list[str]:
    """JupyterLab with a panel for each session; the addresses of the event sockets that it opens."""
    opened: list[str] = []

    def note(socket: WebSocket) -> None:
        if "/ws" in socket.url.removeprefix("ws://"):
            opened.append(socket.url)

    page.on("websocket", note)
    await page.goto(url)
    await page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored", timeout=60_000)
    await page.evaluate("() => window.jupyterapp.restored")
    await page.locator(".jp-Cambio-statusbar").wait_for()  # the list is there
    for session in sessions:
        await command(page, "cambio-lab:open-chat", id=session)
        await page.locator(f"[data-session='{session}'] .jp-Cambio-composer").wait_for()
    return opened


@pytest.mark.slow
async def test_six_tabs_with_three_sessions_have_a_socket_each_and_survive_a_reload(
    page: Page, limited: LiveServer, service: MessagesApi
) -> None:
    service.policy = Script([reply("Here I am.")] * 3)
    sessions = [await session_of(limited, max_cost_usd=1000) for _ in range(3)]
    pages = [page, *[await page.context.new_page() for _ in range(5)]]
    opened = []
    for number, tab in enumerate(pages):
        url = f"{limited.url}/lab/workspaces/tab{number}?token={limited.token}&reset"
        opened.append(await lab_with(tab, url, *sessions))
    async with limited.client() as client, asyncio.timeout(30):
        for number in range(6):  # JupyterLab saves what a tab shows a moment later
            while sessions[-1] not in (await client.get(f"/lab/api/workspaces/tab{number}")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    for sockets in opened:
        assert len(sockets) == 1, sockets
        sockets.clear()
    await asyncio.gather(*(tab.reload() for tab in pages))
    for tab, sockets in zip(pages, opened, strict=True):
        await tab.locator(".jp-Cambio-panel:visible").first.wait_for(timeout=60_000)
        await expect(tab.locator(".jp-Cambio-notice")).to_have_count(0)
        assert len(sockets) == 1, sockets
    last = f"[data-session='{sessions[-1]}']"
    await command(pages[0], "cambio-lab:open-chat", id=sessions[-1])
    await ask(pages[0], "hello", last)
    for tab in pages:
        await command(tab, "cambio-lab:open-chat", id=sessions[-1])
        await expect(tab.locator(f"{last} .jp-Cambio-reply").last).to_have_text("Here I am.")
    for tab in pages[1:]:
        await tab.close()


@pytest.mark.parametrize("seconds", [3, pytest.param(20, marks=pytest.mark.slow)])
async def test_a_dropped_network_loses_nothing_and_a_stop_says_that_it_did_not_arrive(
    page: Page, limited: LiveServer, service: MessagesApi, network: Network, seconds: int
) -> None:
    service.policy = Script([reply(WORDS), reply(WORDS)])
    service.pace = seconds / 40
    session = await session_of(limited, max_cost_usd=1000)
    await lab_with(page, f"{network.url}/lab?token={limited.token}&reset", session)
    panel = f"[data-session='{session}']"
    notices = page.locator(f"{panel} .jp-Cambio-notices")
    await ask(page, "speak", panel)
    await expect(page.locator(f"{panel} .jp-Cambio-draft")).to_contain_text("word3")
    network.die()
    await page.wait_for_timeout(seconds * 1000)
    await network.come_back()
    await idle(page, panel, timeout=90_000)
    await expect(page.locator(f"{panel} .jp-Cambio-reply")).to_have_text([WORDS])

    await ask(page, "speak again", panel)
    await expect(page.locator(f"{panel} .jp-Cambio-draft")).to_contain_text("word3")
    network.die()
    await page.locator(panel).get_by_role("button", name="Stop").first.click()
    await expect(notices).to_contain_text("has not confirmed the stop")
    await network.come_back()  # the browser may send the request again by itself, or not
    async with limited.client() as client, asyncio.timeout(20):
        while (await state(client, session))["state"] != "idle":
            await page.locator(f"{panel} textarea").press("Escape")
            await asyncio.sleep(0.3)
    await expect(page.locator(f"{panel} .jp-Cambio-remark").last).to_have_text("Stopped", timeout=30_000)
    service.pace = 0.0
