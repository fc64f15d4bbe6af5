"""Fifty sessions in JupyterLab's sidebar: how fast it opens, what its pictures cost, whether the page grows.

    .venv/bin/python -m benchmarks.sidebar [--sessions 50] [--opens 5] [--minutes 5] [--changing 12]

A real JupyterLab, real Chromium, local desktops. ``--changing`` of the newest desktops show something new every second;
the server's processor time is compared between the list closed and the list open, and with the list showing nothing
but its first screenful. ``--minutes 0`` leaves the long watch out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.async_api import CDPSession, Page, async_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.browser.lab import lab_server, open_lab
from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.live_server import LiveServer

TAB = '[data-id="cambio-lab-agents"]'
CLOCK = "while :; do clear; date; seq 1 20; sleep 1; done"
WATCH = """rows => { window.opened = new Promise(tell => addEventListener('pointerdown', async () => {
  const began = performance.now();
  while (document.querySelectorAll('.jp-Cambio-agents .jp-Cambio-agent').length < rows)
    await new Promise(done => requestAnimationFrame(done));
  requestAnimationFrame(() => setTimeout(() => tell(performance.now() - began)));  // painted
}, {capture: true, once: true})) }"""


async def fill(server: LiveServer, sessions: int) -> None:
    async with server.client() as client:
        for number in range(sessions):
            body = {"name": f"Agent {number + 1}", "config": {"model": "demo", "timeout": 7200}}
            (await client.post("/sessions", json=body, timeout=120)).raise_for_status()


def clocks(server: LiveServer, count: int) -> list[subprocess.Popen[bytes]]:
    """Programs that change the newest desktops every second, started where their window managers run."""
    assert server.process is not None
    found = psutil.Process(server.process.pid).children(recursive=True)
    managers = sorted((one for one in found if one.name() == "openbox"), key=lambda one: one.create_time())
    command = ["xterm", "-geometry", "60x22", "-e", "sh", "-c", CLOCK]
    return [subprocess.Popen(command, env=one.environ()) for one in managers[-count:]]


async def opening(page: Page, server: LiveServer, sessions: int) -> float:
    """Milliseconds from the click to the painted list, in a page that has not shown it yet."""
    await open_lab(page, server)
    await page.locator(".jp-Cambio-statusbar", has_text=f"{sessions} agents").wait_for()
    await page.wait_for_timeout(1500)
    await page.evaluate(WATCH, sessions)
    await page.locator(TAB).click()
    return float(await page.evaluate("() => window.opened"))


async def processor(server: LiveServer, seconds: float) -> float:
    """Share of one core that the server's own process takes."""
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    before, began = process.cpu_times(), time.monotonic()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    return float(after.user + after.system - before.user - before.system) / (time.monotonic() - began)


async def page_memory(devtools: CDPSession) -> dict[str, float]:
    """What is left after a collection: heap in MB, elements."""
    await devtools.send("HeapProfiler.collectGarbage")
    metrics = {row["name"]: row["value"] for row in (await devtools.send("Performance.getMetrics"))["metrics"]}
    return {"heap_mb": round(metrics["JSHeapUsedSize"] / 1e6, 2), "nodes": metrics["Nodes"]}


async def watch(page: Page, minutes: float) -> dict[str, Any]:
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable")
    pictures = page.locator(".jp-Cambio-agents .jp-Cambio-thumb img")
    samples, shown = [], set()
    end = time.monotonic() + minutes * 60
    while True:
        samples.append(await page_memory(devtools))
        shown.add(await pictures.first.get_attribute("src"))
        if time.monotonic() >= end:
            break
        await asyncio.sleep(min(15.0, max(1.0, end - time.monotonic())))
    heap = [sample["heap_mb"] for sample in samples]
    quarter = max(1, len(heap) // 4)
    return {
        "heap_mb": heap,
        "nodes": [samples[0]["nodes"], samples[-1]["nodes"]],
        "heap_growth_mb": round(statistics.mean(heap[-quarter:]) - statistics.mean(heap[1 : 1 + quarter]), 2),
        "different_pictures": len(shown),
    }


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="sidebar"))
    env = {"CAMBIO_LAB_MAX_DESKTOPS": str(arguments.sessions), "CAMBIO_LAB_POOL_SIZE": "0"}
    server = lab_server(folder, desktop="local", env=env)
    await server.start(120)
    programs: list[subprocess.Popen[bytes]] = []
    try:
        began = time.monotonic()
        await fill(server, arguments.sessions)
        print(f"{arguments.sessions} desktops in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
            page = await browser.new_page(viewport={"width": 1440, "height": 900})
            took = [await opening(page, server, arguments.sessions) for _ in range(arguments.opens)]
            found: dict[str, Any] = {
                "sessions": arguments.sessions,
                "load_average": round(os.getloadavg()[0], 1),
                "open_ms": [round(one) for one in took],
                "open_ms_median": round(statistics.median(took)),
            }
            programs = clocks(server, arguments.changing)
            await asyncio.sleep(3)
            opened = await processor(server, 20)
            await page.locator(TAB).click()  # closed
            closed = await processor(server, 20)
            await page.locator(TAB).click()
            await page.locator(".jp-Cambio-agents").wait_for()
            found["server_share_of_a_core"] = {
                "list_closed": round(closed, 4),
                "list_open": round(opened, 4),
                "thumbnails": round(opened - closed, 4),
            }
            if arguments.minutes:
                found["watch"] = await watch(page, arguments.minutes)
            await browser.close()
    finally:
        for program in programs:
            program.terminate()
        await server.stop(60)
        for program in programs:
            program.wait(10)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--opens", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--changing", type=int, default=12)
    print(json.dumps(asyncio.run(run(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
