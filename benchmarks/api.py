"""The API beside Jupyter Server's own ``GET /api/status``, on the same server in the same run, as ratios.

``python -m benchmarks.api [--sessions 10000] [--seconds 1.5] [--rounds 15]``

The lines with "each another" ask for a page or a session that was not asked for before.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from cambio_lab.store import SessionRow, Store
from tests.live_server import LiveServer

TARGET = 0.7
CONNECTIONS = 8
MESSAGE_MS = 5.0


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        known = await fill(data / "cambio_lab", options.sessions)
        server = LiveServer(data_dir=data)
        await server.start()
        try:
            async with aiohttp.ClientSession(headers=server.headers) as client:
                good = await throughput(client, server, known, options.seconds, options.rounds)
                good &= await first_status(client, server, data / "floor")
        finally:
            await server.stop()
    return 0 if good else 1


async def fill(directory: Path, count: int) -> list[str]:
    """Store ``count`` ended sessions; their ids."""
    store = await Store.open(directory)
    now = time.time() - count
    rows = [
        SessionRow(
            id=str(uuid.uuid4()),
            name=f"Session {number}",
            status="inactive",
            created_at=now + number,
            ended_at=now + number + 1,
            end_reason="request",
            config={"timeout": 3600},
            model="demo",
            desktop_kind="local",
            steps=5,
            usage={"input_tokens": 1000, "output_tokens": 50, "requests": 5, "cost_usd": 0.01},
        )
        for number in range(count)
    ]
    for start in range(0, count, 500):
        await store.write(*(store.sessions.inserting(row) for row in rows[start : start + 500]))
    await store.close()
    return [row.id for row in rows]


async def throughput(
    client: aiohttp.ClientSession, server: LiveServer, known: list[str], seconds: float, rounds: int
) -> bool:
    """Requests a second of each address, taken in turns so that a busy moment hits all of them."""
    body = {"name": "live", "config": {}}
    async with client.post(f"{server.url}/sessions", json=body) as response:
        live = (await response.json())["id"]
    order = random.Random(1)
    offsets, others = list(range(len(known) - 50)), list(known)
    order.shuffle(offsets)
    order.shuffle(others)
    addresses: dict[str, Iterator[str]] = {
        "GET /api/status": itertools.repeat("/api/status"),
        "GET /sessions": itertools.repeat("/sessions"),
        "GET /sessions?limit=10": itertools.repeat("/sessions?limit=10"),
        "GET /sessions/{id} (live)": itertools.repeat(f"/sessions/{live}"),
        "GET /sessions/{id} (stored)": itertools.repeat(f"/sessions/{known[0]}"),
        "GET /sessions/{id}, each another": itertools.cycle(f"/sessions/{one}" for one in others),
        "GET /sessions, each another": itertools.cycle(f"/sessions?offset={offset}" for offset in offsets),
        "the same among the newest 500": itertools.cycle(f"/sessions?offset={one}" for one in offsets if one < 500),
    }
    measured: dict[str, list[float]] = {name: [] for name in addresses}
    for _ in range(rounds):
        for name, paths in addresses.items():
            measured[name].append(await rate(client, server.url, paths, seconds / len(addresses)))
    base = measured["GET /api/status"]
    good = True
    for name, rates in measured.items():
        ratio = statistics.median(one / other for one, other in zip(rates, base, strict=True))
        judged = name.startswith("GET") and "another" not in name
        good &= ratio >= TARGET or not judged
        target = f"   (>= {TARGET})" if judged else ""
        print(f"{name:32} {statistics.median(rates):8.0f} /s   ratio {ratio:5.2f}{target}")
    return good


async def rate(client: aiohttp.ClientSession, url: str, paths: Iterator[str], seconds: float) -> float:
    """Answers a second over a few connections that are kept."""
    end = time.perf_counter() + seconds

    async def ask() -> int:
        count = 0
        while time.perf_counter() < end:
            async with client.get(url + next(paths)) as response:
                await response.read()
                assert response.status == 200, response.status
            count += 1
        return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - started)


async def first_status(client: aiohttp.ClientSession, server: LiveServer, scratch: Path) -> bool:
    """From a message on ``/ws`` to the first ``status`` that it causes: 50 messages, each stopped at once.

    The message is on disk before it is acknowledged, so what the disk takes for 8 KB is measured beside it.
    """
    async with client.post(f"{server.url}/sessions", json={}) as response:
        session = await response.json()
    took, disk = [], []
    async with client.ws_connect(f"{server.ws_url}/ws/{session['id']}") as socket:
        await socket.receive()
        await socket.send_str('{"content": "Look"}')  # the first turn loads the SDK
        await until(socket, "agent_response")
        await until(socket, "status", "idle")
        for _ in range(50):
            started = time.perf_counter()
            await socket.send_str('{"content": "Look"}')
            await until(socket, "status")
            took.append((time.perf_counter() - started) * 1000)
            await socket.send_str('{"type": "stop"}')
            await until(socket, "agent_response")
            await until(socket, "status", "idle")
            disk.append(await asyncio.to_thread(synced, scratch))
    median = statistics.median(took)
    worst = statistics.quantiles(took, n=20)[-1]
    print(f"message on /ws -> first status   p50 {median:.2f} ms   p95 {worst:.2f} ms   (<= {MESSAGE_MS:g})")
    floor, slow = statistics.median(disk), statistics.quantiles(disk, n=20)[-1]
    print(f"of that, writing 8 KB to the disk   p50 {floor:.2f} ms   p95 {slow:.2f} ms")
    return median <= MESSAGE_MS


def synced(path: Path) -> float:
    """Milliseconds to append 8 KB to a file and have them on disk."""
    with path.open("ab", buffering=0) as file:
        started = time.perf_counter()
        file.write(bytes(8192))
        os.fsync(file.fileno())
        return (time.perf_counter() - started) * 1000


async def until(socket: aiohttp.ClientWebSocketResponse, kind: str, status: str | None = None) -> None:
    while True:
        message = json.loads((await socket.receive()).data)
        if message["type"] == kind and status in (None, message.get("status")):
            return


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
