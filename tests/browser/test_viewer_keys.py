"""Keyboard and clipboard of a viewer: what a person types, composes, copies and pastes reaches the desktop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.live_server import LiveServer

from .conftest import MakeSession
from .lab import LIVE, PATIENCE, canvas, changed, lab_server, pixels, session_of

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

VIEWER = ".jp-Cambio-viewer"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    server = lab_server(tmp_path_factory.mktemp("keys"), desktop="local", model="demo")
    await server.start()
    yield server
    await server.stop(timeout=60)


async def watch(page: Page, server: LiveServer, session_id: str = "") -> str:
    """Open the viewer of a session, of a new one when none is named."""
    session_id = session_id or await session_of(server)
    await page.goto(f"{server.url}/vnc/{session_id}?token={server.token}")
    await page.locator(LIVE).wait_for()
    return session_id


async def terminal(page: Page) -> None:
    """Open a terminal with the desktop's own shortcut, and wait until it is drawn."""
    await canvas(page, VIEWER).click(position={"x": 5, "y": 5})
    before = await pixels(page, VIEWER)
    await page.keyboard.press("Control+Alt+t")
    await changed(page, before, VIEWER, seconds=20)
    await page.wait_for_timeout(1000)  # the shell's prompt


async def written(client: httpx2.AsyncClient, session_id: str, name: str, wanted: str) -> None:
    """Return once the file of this name in the desktop's home holds ``wanted``."""
    end = time.monotonic() + PATIENCE / 1000
    while True:
        answer = await client.get(f"/sessions/{session_id}/files/{name}")
        if answer.status_code == 200 and answer.text == wanted:
            return
        assert time.monotonic() < end, f"{answer.status_code}: {answer.text[:200]!r} instead of {wanted!r}"


async def test_what_an_input_method_composes_arrives(page: Page, local: LiveServer) -> None:
    session_id = await watch(page, local)
    await terminal(page)
    await page.keyboard.type("cat > composed.txt\n")
    devtools = await page.context.new_cdp_session(page.frames[1])
    for piece in ("に", "にほ", "日本"):
        await devtools.send("Input.imeSetComposition", {"text": piece, "selectionStart": 0, "selectionEnd": len(piece)})
    await devtools.send("Input.insertText", {"text": "日本"})
    await page.keyboard.press("Enter")
    await page.keyboard.press("Control+d")
    async with local.client() as client:
        await written(client, session_id, "composed.txt", "日本\n")


@pytest.mark.docker
async def test_the_clipboard_is_shared_both_ways_once_agreed(
    page: Page, lab: LiveServer, client: httpx2.AsyncClient, make_session: MakeSession
) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    session_id = (await make_session("Clipboard", approval="never"))["id"]
    await watch(page, lab, session_id)
    await page.evaluate("() => navigator.clipboard.writeText('from the browser ✓')")
    await terminal(page)
    await page.keyboard.type("cat > pasted.txt\n")
    await page.keyboard.press("Control+Shift+V")
    question = page.get_by_role("alertdialog", name="Clipboard")
    await expect(question).to_contain_text("Share your clipboard")
    before = await pixels(page, VIEWER)
    await question.get_by_role("button", name="Share").click()
    await changed(page, before, VIEWER)  # a program asks for the clipboard's text when it pastes
    await page.keyboard.press("Enter")
    before = await pixels(page, VIEWER)
    await page.keyboard.press("Control+Shift+V")  # not asked again
    await changed(page, before, VIEWER)
    await page.wait_for_timeout(500)
    await page.keyboard.press("Enter")
    await page.keyboard.press("Control+d")
    await expect(question).to_have_count(0)
    await written(client, session_id, "pasted.txt", "from the browser ✓\n" * 2)
    await client.put(f"/sessions/{session_id}/clipboard", json={"text": "from the desktop ü"})
    await page.wait_for_function("async () => (await navigator.clipboard.readText()) === 'from the desktop ü'")


async def test_command_is_control_on_a_mac(page: Page, local: LiveServer) -> None:
    session_id = await watch(page, local)
    await terminal(page)
    await page.add_init_script("Object.defineProperty(Navigator.prototype, 'platform', {get: () => 'MacIntel'})")
    await page.reload()
    await page.locator(LIVE).wait_for()
    await canvas(page, VIEWER).click(position={"x": 5, "y": 5})
    async with local.client() as client:
        await page.keyboard.type("sh -c 'echo on > on.txt; exec sleep 1000'\n")
        await written(client, session_id, "on.txt", "on\n")  # a shell that is about to start it is not interrupted
        await page.keyboard.press("Meta+c")
        await page.keyboard.type("echo interrupted > mac.txt\n")
        await written(client, session_id, "mac.txt", "interrupted\n")


async def test_the_desktop_is_entered_by_a_button_and_left_by_a_key(page: Page, local: LiveServer) -> None:
    await watch(page, local)
    take = page.get_by_role("button", name="Take control")
    await take.focus()
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    assert await page.evaluate("() => document.activeElement.tagName") != "IFRAME", "Tab is caught by the desktop"
    await take.press("Enter")
    await expect(page.locator(".jp-Cambio-driver")).to_contain_text("Shift+Esc leaves")
    await page.wait_for_function("() => document.activeElement.tagName === 'IFRAME'")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Escape")
    assert await page.evaluate("() => document.activeElement.tagName") == "IFRAME"
    await page.keyboard.press("Shift+Escape")
    await page.wait_for_function("() => document.activeElement.classList.contains('jp-Cambio-desktop')")
    await page.keyboard.press("Shift+Tab")
    await page.wait_for_function("() => document.activeElement.closest('.jp-Cambio-bar') !== null")
    await page.get_by_role("button", name="Give back").press("Enter")
    await expect(page.get_by_role("button", name="Take control")).to_be_visible()
