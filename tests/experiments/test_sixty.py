"""Sixty cells on real sandboxes: interrupted, resumed, judged again, reported; and the same sixty on Dask."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from distributed import Client, LocalCluster
from playwright.async_api import async_playwright

from cambio_lab.experiments import Experiment
from cambio_lab.reports import Run
from tests.messages_api import MessagesApi

from .conftest import BAD, GOOD, word_task

ROOT = Path(__file__).resolve().parents[2]
VERDICT = ["task", "model", "setting", "repeat", "seed", "success", "score"]
pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(1500)]


async def strict(live: Any) -> bool:
    """A check with a bug: it wants the word in capitals."""
    return bool((await live.read("word.txt")).strip() == live.values["word"].upper())


def sixty(directory: Path, name: str, **task: Any) -> Experiment:
    tasks = [word_task(f"word-{number}", **task) for number in range(10)]
    lab = {"desktop": "sandbox", "pool_size": 0}
    return Experiment(tasks, models=[GOOD, BAD], repeats=3, name=name, directory=directory, lab=lab)


async def test_sixty_cells(tmp_path: Path, api: MessagesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sixty(tmp_path, "sixty", check=strict)
    running = made.start(progress=False)
    while made.tally.done < 20:
        assert not running.done()
        await asyncio.sleep(0.1)
    made.stop()
    first = await running
    assert first.ended == "stopped" and 20 <= first.done < 60
    calls = len(api.requests)

    again = sixty(tmp_path, "sixty", check=strict)
    tally = await again.run(progress=False)
    assert (tally.ended, tally.done, tally.success) == ("complete", 60, 0)
    assert len(api.requests) < calls + 2 * (60 - first.done) + 2, "cells that were done ran again"

    fixed = sixty(tmp_path, "sixty")
    asked = len(api.requests)
    rows = await fixed.rescore()
    assert len(rows) == 60 and all(row["judged"] for row in rows) and len(api.requests) == asked
    assert (await fixed.run(progress=False)).success == 30

    page = fixed.report()
    text = page.read_text()
    links = re.findall(r'href="(runs/[^"]+)"', text)
    assert len(links) == 60 and all(len(Run.load(page.parent / unquote(link)).steps) == 1 for link in links)
    print(f"report.html {page.stat().st_size / 1e6:.2f} MB, 60 run files "
          f"{sum((page.parent / unquote(link)).stat().st_size for link in links) / 1e6:.2f} MB")  # fmt: skip
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path="/usr/bin/chromium")
        shown = await browser.new_page(viewport={"width": 1280, "height": 900})
        await shown.context.set_offline(True)
        await shown.goto(page.as_uri())
        assert await shown.locator("table").last.locator("a").count() == 60
        await shown.screenshot(path=tmp_path / "report.png")
        await browser.close()

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    options = {"threads_per_worker": 2, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with LocalCluster(n_workers=2, processes=True, **options) as dask:
        async with Client(dask.scheduler_address, asynchronous=True) as client:
            spread = sixty(tmp_path, "spread")
            assert (await spread.run(engine=client, progress=False)).success == 30
    assert spread.results[VERDICT].equals(fixed.results[VERDICT])
