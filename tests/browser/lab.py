"""What the browser tests do on a page of JupyterLab, and where the built front end is found."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx2
from playwright.async_api import Locator, Page, expect

from tests.live_server import LiveServer

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
LIVE = ".jp-Cambio-desktop[data-phase=open] iframe"
PATIENCE = 20_000.0  # milliseconds: two cores start JupyterLab, Chromium and a container at once


def share(directory: Path) -> Path:
    """A ``JUPYTER_PATH`` entry with the checkout's own build, whatever version is installed beside it."""
    extensions = directory / "labextensions"
    extensions.mkdir(parents=True)
    (extensions / "cambio-lab").symlink_to(ROOT / "cambio_lab" / "labextension", target_is_directory=True)
    return directory


def lab_server(directory: Path, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> LiveServer:
    """``jupyter lab`` with our extension, a Docker desktop and the demo model unless told otherwise."""
    notebooks = directory / "notebooks"
    notebooks.mkdir()
    quiet = directory / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    return LiveServer(
        "--ServerApp.jpserver_extensions={'cambio_lab': True}",
        "--LabApp.expose_app_in_browser=True",
        *arguments,
        data_dir=directory,
        cwd=notebooks,
        env={"JUPYTER_PATH": str(share(directory / "share")), "PYTHONPATH": str(ROOT), **(env or {})},
        **{"command": "lab", "desktop": "docker", **options},
    )


def notebook(path: Path, *sources: str) -> None:
    """Write a notebook whose cells are ``sources``."""
    cells: list[dict[str, object]] = [
        {"cell_type": "code", "execution_count": None, "id": f"c{n}", "metadata": {}, "outputs": [], "source": source}
        for n, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))


async def session_of(server: LiveServer, **config: Any) -> str:
    async with server.client() as client:
        answer = await client.post("/sessions", json={"config": config})
        return str(answer.raise_for_status().json()["id"])


async def open_lab(page: Page, server: LiveServer, path: str = "", theme: str = "") -> None:
    """JupyterLab on ``page``, with an empty workspace; ``path`` as in ``tree/x.ipynb``."""
    await page.goto(f"{server.url}/lab{'/' + path if path else ''}?token={server.token}&reset")
    await restored(page)
    if theme:
        await page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        await page.wait_for_timeout(500)


async def restored(page: Page) -> None:
    """Wait until JupyterLab has restored its workspace."""
    await page.locator("#jp-main-dock-panel .lm-TabBar-tab").first.wait_for(timeout=60_000)
    await page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored")
    await page.evaluate("() => window.jupyterapp.restored")
    # Chromium drops what it is fetching when the machine's networks change, as they do when a container starts.
    if await page.locator(".jp-Dialog[aria-label^='Error Loading Theme']").count():
        await page.reload()
        await page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored")
        await page.evaluate("() => window.jupyterapp.restored")


async def command(page: Page, name: str, **arguments: Any) -> None:
    """Execute a command of JupyterLab and wait for its end."""
    await page.evaluate("async ([name, args]) => { await jupyterapp.commands.execute(name, args) }", [name, arguments])


async def run_cell(page: Page, index: int) -> None:
    """Run one cell of the notebook in front."""
    await page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".cm-content").click()
    await page.keyboard.press("Shift+Enter")


async def notebook_7(page: Page, server: LiveServer, name: str) -> None:
    """Open a notebook in Notebook 7 and run its first cell; a key press before the kernel is there does nothing."""
    await page.goto(f"{server.url}/notebooks/{name}?token={server.token}")
    await page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=60_000)
    async with asyncio.timeout(60), server.client() as client:
        while not any(  # noqa: ASYNC110
            row["path"] == name and row["kernel"]["connections"] and row["kernel"]["execution_state"] == "idle"
            for row in (await client.get("/api/sessions")).json()
        ):
            await asyncio.sleep(0.1)
    prompt = page.locator(".jp-Notebook .jp-CodeCell").first.locator(".jp-InputPrompt")
    for _ in range(10):
        await page.wait_for_timeout(500)
        await run_cell(page, 0)
        await page.wait_for_timeout(500)
        if (await prompt.inner_text()).strip() != "[ ]:":
            break


async def kernel_ready(page: Page) -> None:
    await page.wait_for_function(
        "async () => { const context = window.jupyterapp?.shell.currentWidget?.sessionContext;"
        " if (!context) return false; await context.ready; const kernel = context.session?.kernel;"
        " if (!kernel) return false; await kernel.info; return kernel.status === 'idle' }",
        timeout=90_000,
    )


async def ask(page: Page, text: str, root: str = ".jp-Cambio-panel") -> None:
    """Write into a panel's composer, send, and wait until the server has accepted it: the turn has begun."""
    await page.locator(f"{root} .jp-Cambio-composer textarea").fill(text)
    await page.locator(f"{root} .jp-Cambio-composer textarea").press("Enter")
    await page.locator(f"{root} .jp-Cambio-user").filter(has_text=text).last.wait_for()


async def idle(page: Page, root: str = ".jp-Cambio-panel", timeout: float = 60_000) -> None:
    await expect(page.locator(f"{root} .jp-Cambio-bar .jp-Cambio-status")).to_have_attribute(
        "data-status", "idle", timeout=timeout
    )


def canvas(page: Page, root: str = ".jp-Cambio-panel") -> Locator:
    """The canvas of a panel's desktop, within the sandboxed frame."""
    return page.frame_locator(f"{root} .jp-Cambio-screen iframe").locator("canvas")


async def pixels(page: Page, root: str = ".jp-Cambio-panel") -> str:
    """The image in a panel's desktop; equal texts are equal images."""
    image: str = await canvas(page, root).evaluate("canvas => canvas.toDataURL('image/png')")
    return image


async def changed(page: Page, before: str, root: str = ".jp-Cambio-panel", seconds: float = 5.0) -> None:
    """Return once the image differs from ``before``."""
    end = time.monotonic() + seconds
    while await pixels(page, root) == before:
        assert time.monotonic() < end, "the image stayed the same"
        await asyncio.sleep(0.05)


async def state(client: httpx2.AsyncClient, session_id: str) -> dict[str, Any]:
    answer = await client.get(f"/sessions/{session_id}")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


async def until(client: httpx2.AsyncClient, session_id: str, wanted: str, seconds: float = 30.0) -> None:
    """Return once the session's state is ``wanted``."""
    end = time.monotonic() + seconds
    while (now := (await state(client, session_id))["state"]) != wanted:
        assert time.monotonic() < end, f"{now} instead of {wanted}"
        await asyncio.sleep(0.05)


async def violations(page: Page, selector: str) -> list[str]:
    """What axe-core finds serious or critical below ``selector``."""
    await page.evaluate(AXE.read_text())  # not as a script element: the viewer's policy forbids those
    found = await page.evaluate(
        "async selector => (await axe.run(selector)).violations.filter(v => ['serious', 'critical'].includes(v.impact))"
        ".map(v => `${v.id}: ${v.nodes.map(n => n.html.slice(0, 160)).join(' | ')}`)",
        selector,
    )
    return list(found)
