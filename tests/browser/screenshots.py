"""Screenshots of what people see, to look at: `python -m tests.browser.screenshots FOLDER`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.live_server import LiveServer

from .lab import LIVE, ask, command, idle, kernel_ready, lab_server, notebook, notebook_7, open_lab, run_cell

ATTACH = "from cambio_lab import Workbench\n\nlab = Workbench()\nsession = await lab.session({!r})\nsession"


async def shoot(page: Page, folder: Path, name: str) -> None:
    await page.wait_for_timeout(700)
    await page.screenshot(path=folder / f"{name}.png")


async def make(server: LiveServer, name: str, **config: Any) -> str:
    async with server.client() as client:
        answer = await client.post("/sessions", json={"name": name, "config": {"model": "demo", **config}})
        return str(answer.raise_for_status().json()["id"])


async def panels(browser: Browser, server: LiveServer, work: Path, folder: Path, session: str) -> None:
    notebook(work / "panel.ipynb", ATTACH.format(session))
    for theme, width, height in (("Light", 1440, 900), ("Dark", 1440, 900), ("Light", 760, 1000), ("Dark", 480, 1000)):
        page = await browser.new_page(viewport={"width": width, "height": height})
        await open_lab(page, server, "tree/panel.ipynb", f"JupyterLab {theme}")
        if width < 1000:
            await command(page, "application:toggle-left-area")
        await kernel_ready(page)
        await run_cell(page, 0)
        await page.locator(LIVE).first.wait_for(timeout=30_000)
        if (theme, width) == ("Light", 1440):
            await ask(page, "Show me the desktop")
            await idle(page)
        await page.locator(".jp-Cambio-panel").first.scroll_into_view_if_needed()
        await shoot(page, folder, f"panel-{theme.lower()}-{width}")
        await page.close()


SIZES = {"1440x900": (1440, 900), "960x600": (960, 600), "cell": (850, 900)}


async def states(browser: Browser, server: LiveServer, work: Path, folder: Path) -> None:
    """The panel idle, waiting for approval, acting, in control, done and ended, at each size."""
    for label, (width, height) in SIZES.items():
        session = await make(server, "Flights to Oslo", approval="always", max_cost_usd=2)
        page = await browser.new_page(viewport={"width": width, "height": height})
        if label == "cell":  # about 700 pixels wide
            notebook(work / "cell.ipynb", ATTACH.format(session))
            await open_lab(page, server, "tree/cell.ipynb")
            await kernel_ready(page)
            await command(page, "application:toggle-left-area")
            await run_cell(page, 0)
        else:
            await open_lab(page, server)
            await command(page, "cambio-lab:open-desktop", id=session)
        panel = page.locator(".jp-Cambio-panel")
        await page.locator(LIVE).wait_for(timeout=30_000)
        await panel.scroll_into_view_if_needed()
        await shoot(page, folder, f"{label}-1-idle")
        await ask(page, "Show me the desktop")
        await panel.locator(".jp-Cambio-approval").wait_for()
        await shoot(page, folder, f"{label}-2-waiting")
        async with server.client() as client:
            await client.patch(f"/sessions/{session}", json={"approval": "never"})
        await panel.locator(".jp-Cambio-approval").get_by_role("button", name="Approve").click()
        await panel.locator(".jp-Cambio-card").nth(1).wait_for()
        await shoot(page, folder, f"{label}-3-acting")
        await panel.get_by_role("button", name="Take control").click()
        await shoot(page, folder, f"{label}-4-control")
        await panel.get_by_role("button", name="Give back").click()
        await idle(page)
        await shoot(page, folder, f"{label}-5-done")
        async with server.client() as client:
            await client.delete(f"/sessions/{session}")
        await panel.locator(".jp-Cambio-ended").wait_for()
        await shoot(page, folder, f"{label}-6-ended")
        await page.close()


async def lab_itself(browser: Browser, server: LiveServer, work: Path, folder: Path, session: str) -> None:
    asking = await make(server, "Hotels in Rome", approval="always")
    async with server.client() as client:
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
    await notebook_7(page, server, "panel.ipynb")
    await page.locator(LIVE).wait_for()
    await shoot(page, folder, "notebook-7")
    await page.goto(f"{server.url}/vnc/{session}")
    await page.locator(LIVE).wait_for()
    await shoot(page, folder, "viewer")
    await page.close()


async def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="cambio-screenshots-") as place:
        server = lab_server(Path(place), desktop="local")
        await server.start()
        try:
            session = await make(server, "Flights to Oslo", approval="never", max_cost_usd=2)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
                assert server.cwd is not None
                await states(browser, server, server.cwd, folder)
                await panels(browser, server, server.cwd, folder, session)
                await lab_itself(browser, server, server.cwd, folder, session)
                await browser.close()
        finally:
            await server.stop(60)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(Path(sys.argv[1])))
