"""Screenshots of what people see, to look at: `python -m tests.browser.screenshots FOLDER [PART...]`."""

from __future__ import annotations

import asyncio
import base64
import http.server
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Locator, Page, async_playwright

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.live_server import LiveServer
from tests.messages_api import MessagesApi, Reply, View, browse, reply

from .lab import (
    LIVE,
    ask,
    canvas,
    command,
    idle,
    kernel_ready,
    lab_server,
    notebook,
    notebook_7,
    open_lab,
    run_cell,
    until,
)
from .test_agents import say

ATTACH = "from cambio_lab import Workbench\n\nlab = Workbench()\nsession = await lab.session({!r})\nsession"


async def shoot(page: Page, folder: Path, name: str) -> None:
    await page.wait_for_timeout(700)
    await page.screenshot(path=folder / f"{name}.png")


async def make(server: LiveServer, name: str, **config: Any) -> str:
    async with server.client() as client:
        answer = await client.post("/sessions", json={"name": name, "config": {"model": "demo", **config}})
        return str(answer.raise_for_status().json()["id"])


SIZES = {"1440x900": (1440, 900), "960x600": (960, 600), "cell": (850, 900)}
QUESTION = 'ask_user {"question": "Which airport shall I use?", "choices": ["Gardermoen", "Torp"]}'


async def opened(
    browser: Browser, server: LiveServer, work: Path, session: str, label: str, theme: str = "Light"
) -> tuple[Page, Locator]:
    """A page of one of the sizes with the session's panel; ``cell`` is a notebook's, about 700 pixels wide."""
    width, height = SIZES[label]
    page = await browser.new_page(viewport={"width": width, "height": height})
    if label == "cell":
        notebook(work / "cell.ipynb", ATTACH.format(session))
        await open_lab(page, server, "tree/cell.ipynb", f"JupyterLab {theme}")
        await kernel_ready(page)
        await command(page, "application:toggle-left-area")
        await run_cell(page, 0)
    else:
        await open_lab(page, server, theme=f"JupyterLab {theme}")
        await command(page, "cambio-lab:open-desktop", id=session)
    panel = page.locator(".jp-Cambio-panel")
    await page.locator(LIVE).wait_for(timeout=60_000)
    await panel.scroll_into_view_if_needed()
    return page, panel


async def states(browser: Browser, server: LiveServer, work: Path, folder: Path) -> None:
    """The panel idle, waiting for approval, acting, in control, done, asking and ended, at each size and dark."""
    for label, theme in [*((label, "Light") for label in SIZES), ("1440x900", "Dark")]:
        session = await make(server, "Flights to Oslo", approval="always", max_cost_usd=2, ask_user=True)
        page, panel = await opened(browser, server, work, session, label, theme)
        name = f"{label}-{theme.lower()}"
        await shoot(page, folder, f"{name}-1-idle")
        await ask(page, "Show me the desktop")
        await panel.locator(".jp-Cambio-approval").wait_for()
        await shoot(page, folder, f"{name}-2-waiting")
        async with server.client() as client:
            await client.patch(f"/sessions/{session}", json={"approval": "never"})
        await panel.locator(".jp-Cambio-approval").get_by_role("button", name="Approve").click()
        await panel.locator(".jp-Cambio-card").nth(1).wait_for()
        await shoot(page, folder, f"{name}-3-acting")
        await panel.get_by_role("button", name="Take control").click()
        await shoot(page, folder, f"{name}-4-control")
        await panel.get_by_role("button", name="Give back").click()
        await idle(page)
        await shoot(page, folder, f"{name}-5-done")
        await ask(page, QUESTION)
        await panel.locator(".jp-Cambio-asks").wait_for()
        await shoot(page, folder, f"{name}-6-asking")
        async with server.client() as client:
            await client.delete(f"/sessions/{session}")
        await panel.locator(".jp-Cambio-ended").wait_for()
        await shoot(page, folder, f"{name}-7-ended")
        await page.close()


async def record_bar(browser: Browser, server: LiveServer, work: Path, folder: Path) -> None:
    session = await make(server, "File an expense", record_human="full")
    for label in SIZES:
        page, panel = await opened(browser, server, work, session, label)
        await canvas(page).click(position={"x": 100, "y": 100})
        await panel.locator(".jp-Cambio-card").first.wait_for()
        await shoot(page, folder, f"{label}-record-bar")
        await page.close()


async def comparison(browser: Browser, server: LiveServer, work: Path, folder: Path) -> None:
    """Two runs that differ from their second message on, in JupyterLab and in a notebook."""
    for number, words in enumerate(("How are you?", "What can you do?")):
        session = await make(server, f"Run {number + 1}", approval="never")
        async with server.client() as client:
            for text in ("Show me the desktop", words):
                await say(server, session, text)
                await until(client, session, "idle", 60)
            await client.delete(f"/sessions/{session}")
            content = (await client.get(f"/sessions/{session}/run")).raise_for_status().content
            (work / f"{number}.cambio").write_bytes(content)
    notebook(
        work / "compare.ipynb",
        "from cambio_lab import Run, compare\ncompare(Run.load('0.cambio'), Run.load('1.cambio'))",
    )
    for theme, (width, height) in (("Light", (1440, 900)), ("Dark", (1440, 900)), ("Light", (960, 600))):
        page = await browser.new_page(viewport={"width": width, "height": height})
        await open_lab(page, server, theme=f"JupyterLab {theme}")
        await command(page, "docmanager:open", path="0.cambio")
        await page.locator(".jp-Cambio-run .jp-Cambio-card").first.wait_for()
        other = base64.b64encode((work / "1.cambio").read_bytes()).decode()
        await page.evaluate("other => jupyterapp.shell.currentWidget.content.compareWith(other)", other)
        await page.locator(".jp-Cambio-first").wait_for()
        await shoot(page, folder, f"compare-{theme.lower()}-{width}")
        await page.close()
    page = await browser.new_page(viewport={"width": 1100, "height": 1200})
    await open_lab(page, server, "tree/compare.ipynb")
    await kernel_ready(page)
    await run_cell(page, 0)
    first = page.get_by_text("First difference", exact=True)
    await first.wait_for(timeout=90_000)
    await first.scroll_into_view_if_needed()
    await shoot(page, folder, "compare-notebook")
    await page.close()


SHOP = b"""<!doctype html><meta charset=utf-8><title>Chairs</title><body style="font:20px sans-serif;margin:40px">
<h1>Chairs</h1><p>A chair of oak, 210 EUR</p>
<p><button onclick="this.textContent = 'In your cart'">Add to cart</button></p>
<p><label>Your name <input></label></p>"""


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(SHOP)

    def log_message(self, *arguments: object) -> None:
        pass


def shopper(url: str) -> Callable[[View], Reply]:
    references: dict[str, str] = {}

    def policy(view: View) -> Reply:
        references.update(re.findall(r'(textbox|button) "[^\n]*?\[(ref_\d+)\]', view.result_text()))
        target = {kind: {"type": "ref", "ref": found} for kind, found in references.items()}
        match view.replies:
            case 0:
                read = browse("read_page", filter="interactive")
                return reply("I look at the shop.", browse("navigate", url=url), read, browse("screenshot"))
            case 1:
                return reply(browse("left_click", target=target["button"]), browse("screenshot"))
            case 2:
                return reply(browse("form_input", target=target["textbox"], value="Ada"))
        return reply("The chair is in the cart.")

    return policy


async def browsing(browser: Browser, folder: Path) -> None:
    """A turn of the browser toolset, and an approval with the page's address."""
    shop = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    threading.Thread(target=shop.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="cambio-shop-") as place, MessagesApi() as api:
        api.policy = shopper(f"http://127.0.0.1:{shop.server_port}/")
        server = lab_server(Path(place), desktop="local", model="claude-sonnet-5-5", env=api.environment)
        await server.start()
        try:
            config = {"model": "claude-sonnet-5-5", "approval": ["form_input"], "tools": ["browser"]}
            session = await make(server, "Buy a chair", **config)
            page, panel = await opened(browser, server, Path(place), session, "1440x900")
            await ask(page, "Put a chair into the cart for Ada")
            await panel.locator(".jp-Cambio-approval").wait_for(timeout=120_000)
            await shoot(page, folder, "browser-approval")
            await panel.locator(".jp-Cambio-approval").get_by_role("button", name="Approve").click()
            await idle(page)
            await shoot(page, folder, "browser-turn")
            await panel.locator(".jp-Cambio-card", has_text="Click").first.click()
            await shoot(page, folder, "browser-step")
            await page.close()
        finally:
            await server.stop(60)
            shop.shutdown()
            shop.server_close()


async def lab_itself(browser: Browser, server: LiveServer, work: Path, folder: Path) -> None:
    session = await make(server, "Flights to Oslo", approval="never", max_cost_usd=2)
    asking = await make(server, "Hotels in Rome", approval="always")
    await say(server, session, "Find a flight")
    async with server.client() as client:
        await until(client, session, "idle", 60)
        (work / "run.cambio").write_bytes((await client.get(f"/sessions/{session}/run")).raise_for_status().content)
    for theme in ("Light", "Dark"):
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        await open_lab(page, server, theme=f"JupyterLab {theme}")
        await page.locator('[data-id="cambio-lab-agents"]').click()
        await page.locator(f".jp-Cambio-agent[data-session-id='{asking}'] img").wait_for()
        await shoot(page, folder, f"launcher-{theme.lower()}")
        await page.locator(".jp-Cambio-agents").get_by_role("button", name="New agent session").first.click()
        await shoot(page, folder, f"form-{theme.lower()}")
        await page.keyboard.press("Escape")
        await page.locator(f".jp-Cambio-agent[data-session-id='{asking}'] .jp-Cambio-agent-open").click()
        await page.locator(LIVE).wait_for()
        if theme == "Light":
            await ask(page, "Find a hotel", ".jp-Cambio-document")
        await page.locator(".jp-Cambio-chat .jp-Cambio-approval").wait_for()
        await page.locator(f".jp-Cambio-agent[data-session-id='{session}']").click(button="right")
        await shoot(page, folder, f"tab-{theme.lower()}")
        await page.keyboard.press("Escape")
        await command(page, "docmanager:open", path="run.cambio")
        await page.locator(".jp-Cambio-run .jp-Cambio-card").nth(2).click()
        await shoot(page, folder, f"run-{theme.lower()}")
        await page.close()
    page = await browser.new_page(viewport={"width": 1100, "height": 900})
    notebook(work / "panel.ipynb", ATTACH.format(session))
    await notebook_7(page, server, "panel.ipynb")
    await page.locator(LIVE).wait_for()
    await shoot(page, folder, "notebook-7")
    await page.goto(f"{server.url}/vnc/{session}")
    await page.locator(LIVE).wait_for()
    await shoot(page, folder, "viewer")
    await page.close()


async def main(folder: Path, wanted: set[str]) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        if not wanted or "browsing" in wanted:
            await browsing(browser, folder)
        with tempfile.TemporaryDirectory(prefix="cambio-screenshots-") as place:
            server = lab_server(Path(place), desktop="local")
            await server.start()
            try:
                assert server.cwd is not None
                for part in (states, record_bar, comparison, lab_itself):
                    if not wanted or part.__name__ in wanted:
                        await part(browser, server, server.cwd, folder)
            finally:
                await server.stop(60)
        await browser.close()


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(Path(sys.argv[1]), set(sys.argv[2:])))
