"""The first notebook after *Run All Cells*: a live desktop in the page, and an agent at work on it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.live_server import LiveServer

from .conftest import RESULTS
from .lab import LIVE, ROOT, changed, kernel_ready, open_lab, pixels

pytestmark = [pytest.mark.browser, pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

SECONDS = 5.0
"""From the first cell to a live desktop (issue 18.1)."""


@pytest.mark.timing
async def test_run_all_brings_a_live_desktop_and_an_agent_at_work(page: Page, lab: LiveServer, notebooks: Path) -> None:
    source = json.loads((ROOT / "notebooks" / "01-first-session.ipynb").read_text())
    assert len(source["cells"]) <= 8
    for cell in source["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    (notebooks / "01-first-session.ipynb").write_text(json.dumps(source))
    await page.set_viewport_size({"width": 1440, "height": 900})
    await open_lab(page, lab, "tree/01-first-session.ipynb")
    await kernel_ready(page)
    await page.evaluate("() => { void jupyterapp.commands.execute('notebook:run-all-cells') }")
    started = time.monotonic()
    await page.locator(LIVE).first.wait_for(timeout=30_000)
    took = time.monotonic() - started
    await page.locator(".jp-Cambio-panel").first.scroll_into_view_if_needed()
    await changed(page, await pixels(page), seconds=60)
    await expect(page.locator(".jp-OutputArea").filter(has_text="left_click_drag").last).to_be_visible(timeout=60_000)
    RESULTS.mkdir(exist_ok=True)
    await page.screenshot(path=RESULTS / "first-notebook.png")
    await expect(page.locator(".jp-OutputArea").last).to_contain_text("The demo model: Hello!", timeout=60_000)
    await page.screenshot(path=RESULTS / "first-notebook-end.png")
    # It says what it is once at the top of the panel, and once in its answer.
    panel = page.locator(".jp-Cambio-panel").first
    await expect(panel.get_by_text("scripted demo, not Claude")).to_have_count(1)
    assert (await panel.inner_text()).count("a fixed script and not Claude") == 1
    print(f"first cell to live desktop: {took:.1f} s")
    assert took < SECONDS
