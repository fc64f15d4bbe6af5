"""A desktop that attacks its viewers: the tab stays usable, says what happened, and the session can be ended."""

from __future__ import annotations

import asyncio
import itertools
import struct
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, WebSocketRoute, expect

from tests.live_server import LiveServer
from tests.security.hostile_rfb import ATTACKS, HEIGHT, UPDATE, WIDTH

from .lab import LIVE, command, lab_server, open_lab, session_of, until
from .test_safety import WATCH_FRAMES

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FORMAT = struct.pack(">HH4B3H3B3xI", WIDTH, HEIGHT, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0, 4) + b"evil"
ENOUGH = 36 << 20
"""Bytes of an attack; the proxy passes less, so this is what a viewer without any proxy would meet."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    server = lab_server(tmp_path_factory.mktemp("hostile"), desktop="local")
    await server.start()
    yield server
    await server.stop(timeout=60)


class Attacker:
    """The desktop's side of a viewer's connection."""

    def __init__(self, attack: str) -> None:
        self.blocks = ATTACKS[attack]()
        self.heard = 0
        self.connections = 0

    async def __call__(self, route: WebSocketRoute) -> None:
        self.connections += 1
        self.heard = 0
        route.on_message(lambda data: self._hear(route, data))
        route.send(b"RFB 003.008\n")

    def _hear(self, route: WebSocketRoute, data: str | bytes) -> None:
        """Answer the handshake step by step; attack once the viewer has asked for the first update."""
        self.heard += 1
        if self.heard == 1:
            route.send(b"\1\1")
        elif self.heard == 2:
            route.send(bytes(4))
        elif self.heard == 3:
            route.send(FORMAT)
        elif self.heard == 4:
            route.send(UPDATE)
            for block in self.pieces():
                route.send(block)

    def pieces(self) -> Iterator[bytes]:
        """The attack in a few large messages: each one costs the test more than the page."""
        first = next(self.blocks)
        if len(first) >= 1 << 16:
            yield from [first] * max(1, ENOUGH // len(first))
        else:
            yield b"".join(itertools.islice(self.blocks, (1 << 20) // len(first)))


OTHERS = ("copy_rects", "resizes", "clipboard_bombs")


@pytest.mark.parametrize(
    "attack",
    ["many_full_screens", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)
async def test_an_attack_on_the_viewer_leaves_the_tab_usable(page: Page, local: LiveServer, attack: str) -> None:
    session_id = await session_of(local, model="demo")
    attacker = Attacker(attack)
    await page.route_web_socket("**/vnc/**", attacker)
    await open_lab(page, local)
    await command(page, "cambio-lab:open-desktop", id=session_id)
    await page.locator(LIVE).wait_for()
    await page.evaluate(WATCH_FRAMES)
    await page.wait_for_timeout(8000)
    longest = await page.evaluate("() => window.longest")
    words = await page.locator(".jp-Cambio-veil").all_inner_texts()
    print(f"{attack}: longest frame of the tab {longest:.0f} ms; the veil says {words}")
    assert longest < 2000
    begin = time.monotonic()
    await page.locator('[data-id="cambio-lab-agents"]').click()
    await page.locator(f".jp-Cambio-agent[data-session-id='{session_id}']").click(button="right")
    await page.locator(".lm-Menu-itemLabel", has_text="End session").click()
    await page.locator(".jp-Dialog").get_by_role("button", name="End session").click()
    async with local.client() as client:
        await until(client, session_id, "ended")
    print(f"{attack}: ended {time.monotonic() - begin:.1f} s after the first click")


async def test_a_viewer_that_hangs_is_said_and_loaded_again(page: Page, local: LiveServer) -> None:
    session_id = await session_of(local, model="demo")
    await open_lab(page, local)
    await command(page, "cambio-lab:open-desktop", id=session_id)
    await page.locator(LIVE).wait_for()
    (frame,) = [frame for frame in page.frames if frame.url.endswith("/cambio/static/frame.html")]
    assert await frame.evaluate("() => origin") == "null"
    hang = asyncio.ensure_future(frame.evaluate("() => { for (;;); }"))
    await expect(page.locator(".jp-Cambio-veil")).to_contain_text("does not answer")
    await page.get_by_role("button", name="Reload viewer").click()
    await page.locator(LIVE).wait_for()
    await expect(page.locator(".jp-Cambio-veil")).to_have_count(0)
    await asyncio.gather(hang, return_exceptions=True)
