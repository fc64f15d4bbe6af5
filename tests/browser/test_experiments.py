"""The wall of an experiment in JupyterLab's sidebar, while a notebook runs it in a folder outside JupyterLab's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.live_server import LiveServer

from .lab import kernel_ready, lab_server, notebook, open_lab, run_cell, violations

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]
CELL = """
import asyncio, tempfile
from cambio_lab import Experiment, Task
from cambio_lab.experiments import action

async def patient(observation):
    await asyncio.sleep(2.0)
    if observation.step == 3:
        return "clicked"
    return [action("left_click", coordinate=[100, 100])]

async def idle(observation):
    return "I do nothing."

def check(live):
    return live.steps > 1  # every policy looks once

tasks = [Task("press", "Press it.", check=check), Task("look around", "Look.", check=check)]
experiment = Experiment(tasks, models={"patient": patient, "idle": idle}, repeats=2, name="walled",
                        directory=tempfile.mkdtemp(), lab={"desktop": "local"})
tally = await experiment.run(concurrency=2)
print(tally.ended, tally.success)
"""
SIDE = ".jp-Cambio-agents"
VIEWER = ".jp-Cambio-document:visible .jp-Cambio-run"


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    server = lab_server(tmp_path_factory.mktemp("walls"), desktop="local")
    await server.start(120)
    yield server
    await server.stop(60)


async def test_the_wall_fills_and_a_click_opens_desktop_or_run(page: Page, lab: LiveServer, tmp_path: Path) -> None:
    assert lab.cwd is not None
    notebook(Path(lab.cwd) / "grid.ipynb", CELL, "dict(zip(experiment.results['tags'], experiment.results['note']))")
    await page.set_viewport_size({"width": 1440, "height": 900})
    await open_lab(page, lab, "tree/grid.ipynb")
    await kernel_ready(page)
    await page.locator('[data-id="cambio-lab-agents"]').click()
    await page.get_by_role("button", name="Experiments", exact=True).click()
    await run_cell(page, 0)
    cells = page.locator(f"{SIDE} .jp-Cambio-cell")
    await expect(cells).to_have_count(8, timeout=60_000)
    running = page.locator(f"{SIDE} .jp-Cambio-cell[data-state=running]").first
    await running.wait_for(timeout=60_000)
    await page.locator(f"{SIDE} .jp-Cambio-wall-live img").first.wait_for(timeout=30_000)
    assert await violations(page, SIDE) == []
    await page.screenshot(path=tmp_path / "running.png")

    await running.click()  # its desktop, and its run when it has ended
    await page.locator(".jp-Cambio-live-cell img").wait_for()
    await page.screenshot(path=tmp_path / "desktop.png")
    await page.locator(VIEWER).wait_for(timeout=60_000)
    await expect(page.locator(".jp-Cambio-live-cell")).to_have_count(0)
    await expect(page.locator(f"{SIDE} .jp-Cambio-cell[data-state=success]")).to_have_count(4, timeout=120_000)
    await expect(page.locator(f"{SIDE} .jp-Cambio-cell[data-state=failure]")).to_have_count(4)

    await page.get_by_role("button", name="Failures only").click()
    await expect(cells).to_have_count(4)
    await page.get_by_label("Search sessions").fill("task:press model:idle")
    await expect(cells).to_have_count(2)
    await cells.first.click()
    viewer = page.locator(VIEWER)
    await viewer.get_by_label("Tags, separated by commas").fill("odd, see Ada")
    await viewer.get_by_label("Tags, separated by commas").press("Enter")
    await viewer.get_by_label("Note").fill("does nothing")
    await viewer.get_by_label("Note").press("Enter")
    await page.get_by_label("Search sessions").fill("tag:odd")
    await expect(cells).to_have_count(1)
    assert await violations(page, ".jp-Cambio-labels") == []
    await page.screenshot(path=tmp_path / "tagged.png")

    await page.get_by_label("Search sessions").fill("model:patient")
    await page.get_by_role("button", name="Failures only").click()
    await page.get_by_role("button", name="Compare two runs").click()
    await cells.nth(0).click()
    await expect(page.get_by_text("Now click the second run.")).to_be_visible()
    await cells.nth(1).click()
    await expect(page.locator(f"{VIEWER} .jp-Cambio-run-column")).to_have_count(2)
    await page.screenshot(path=tmp_path / "compared.png")

    await page.get_by_role("tab", name="grid.ipynb").click()
    await run_cell(page, 1)
    await expect(page.locator(".jp-OutputArea-output", has_text="see Ada").last).to_contain_text("does nothing")
    await page.locator(".jp-OutputArea-output [data-cambio-cell='press/patient/default/0']").click()
    async with page.expect_download(timeout=60_000) as download:
        await page.locator(VIEWER).get_by_role("button", name="Video").click()
    await (await download.value).save_as(tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"
