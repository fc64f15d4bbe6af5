"""The sandbox beside the container, in turn: cold ``POST /sessions``, click to screenshot; then how many fit.

python -m benchmarks.sandbox [--rounds 15] [--clicks 60] [--desktops 50]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import psutil

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import Desktop, Point
from cambio_lab.desktop.connected import ConnectedDesktop
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.settings import Settings
from tests.live_server import LiveServer

SERVE = "setsid python3 -m http.server 8001 -d / >/dev/null 2>&1 </dev/null &"
KINDS = ("docker", "sandbox")


async def cold(rounds: int) -> None:
    """``POST /sessions`` without a pool; both servers run, one of them is asked at a time."""
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"CAMBIO_LAB_POOL_SIZE": "0"}
        servers = {
            kind: LiveServer("--no-token", data_dir=Path(folder, kind), desktop=kind, env=environment) for kind in KINDS
        }
        await asyncio.gather(*(server.start() for server in servers.values()))
        try:
            for number in range(rounds + 1):
                for kind, server in servers.items():
                    async with httpx2.AsyncClient(base_url=server.url, timeout=120) as client:
                        await client.get("/health")
                        begin = time.perf_counter()
                        answer = (await client.post("/sessions", json={})).raise_for_status()
                        if number:  # the first of each is not counted: networks and rules are made with it
                            taken[kind].append((time.perf_counter() - begin) * 1000)
                        await client.delete(f"/sessions/{answer.json()['id']}")
                        await asyncio.sleep(0.5)  # the container is removed after the answer
        finally:
            await asyncio.gather(*(server.stop() for server in servers.values()))
    report("POST /sessions, cold", taken)


def report(name: str, taken: dict[str, list[float]]) -> None:
    middles = {kind: statistics.median(values) for kind, values in taken.items()}
    for kind, values in taken.items():
        print(f"{name:22} {kind:8} p50 {middles[kind]:7.1f} ms   min {min(values):7.1f}   max {max(values):7.1f}")
    print(f"{name:22} sandbox is {middles['sandbox'] / middles['docker']:.2f} x docker\n")


async def clicks(rounds: int) -> None:
    """A right click that opens the desktop's menu, to the encoded screenshot; Escape closes it in between.

    The two take turns in going first, and each click meets a screen that has been quiet for a while.
    """
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    providers = [await make_provider(Settings(pool_size=0), server_id="bench-sandbox", kind=kind) for kind in KINDS]
    desktops = [await provider.acquire("bench", DesktopOptions()) for provider in providers]
    pairs = list(zip(KINDS, desktops, strict=True))
    try:
        for number in range(rounds + 4):
            for kind, desktop in pairs if number % 2 else reversed(pairs):
                begin = time.perf_counter()
                await desktop.click("right", Point(600 + number % 7, 400))
                await desktop.screenshot()
                if number >= 4:
                    taken[kind].append((time.perf_counter() - begin) * 1000)
                await desktop.key("Escape")
                await desktop.screenshot()
                await asyncio.sleep(0.4)
    finally:
        for provider in providers:
            await provider.stop()
    report("click to screenshot", taken)


def held(processes: Sequence[psutil.Process]) -> int:
    """Bytes, with shared pages divided among those that share them."""
    return sum(process.memory_full_info().pss for process in processes)


async def density(count: int) -> None:
    settings = Settings(pool_size=0, max_desktops=count)
    provider = await make_provider(settings, server_id="bench-density", kind="sandbox")
    before = psutil.virtual_memory().available
    begin = time.perf_counter()
    try:
        desktops = await asyncio.gather(*(provider.acquire(str(number), DesktopOptions()) for number in range(count)))
        took = time.perf_counter() - begin
        await asyncio.sleep(5)
        inside = psutil.Process().children(recursive=True)
        print(f"{count} sandboxes at once: {took:.1f} s, {took / count * 1000:.0f} ms each")
        print(f"  {held(inside) / count / 1e6:.1f} MB each (proportional), {len(inside) / count:.1f} processes each")
        print(f"  {(before - psutil.virtual_memory().available) / count / 1e6:.1f} MB less available memory each")
        load = sum(process.cpu_times().user + process.cpu_times().system for process in inside)
        await asyncio.sleep(10)
        spent = sum(process.cpu_times().user + process.cpu_times().system for process in inside) - load
        print(f"  {spent / 10 / count * 100:.2f} % of a processor each, idle")
        await working(desktops[: min(count, 5)], inside)
    finally:
        await provider.stop()


async def working(desktops: Sequence[Desktop], inside: Sequence[psutil.Process]) -> None:
    """What one more desktop at work takes: Chromium on a page of text."""
    idle = held(inside)
    for desktop in desktops:
        assert isinstance(desktop, ConnectedDesktop)
        await desktop.execute(["sh", "-c", SERVE])
        await asyncio.sleep(1)
        await desktop.browse("navigate", {"url": "http://127.0.0.1:8001/usr/bin/"})
    await asyncio.sleep(5)
    more = (held(psutil.Process().children(recursive=True)) - idle) / len(desktops)
    print(f"  {more / 1e6:.0f} MB more each with Chromium on a page ({len(desktops)} of them)")


async def main(options: argparse.Namespace) -> None:
    await cold(options.rounds)
    await clicks(options.clicks)
    await density(options.desktops)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clicks", type=int, default=60)
    parser.add_argument("--desktops", type=int, default=50)
    asyncio.run(main(parser.parse_args()))
