"""The API beside Jupyter Server's own ``GET /api/status``, on the same server in the same run, as ratios.

``python -m benchmarks.api [--sessions 10000] [--seconds 3] [--rounds 5]``
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
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
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        known = await fill(data / "cambio_lab", options.sessions)
        server = LiveServer(data_dir=data)
        await server.start()
        try:
            async with aiohttp.ClientSession(headers=server.headers) as client:
                good = await throughput(client, server, known, options.seconds, options.rounds)
                good &= await first_status(client, server)
        finally:
            await server.stop()
    return 0 if good else 1


async def fill(directory: Path, count: int) -> str:
    """Store ``count`` ended sessions; the id of one in the middle."""
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
    return rows[count // 2].id


async def throughput(
    client: aiohttp.ClientSession, server: LiveServer, known: str, seconds: float, rounds: int
) -> bool:
    """Requests a second of each address, taken in turns so that a busy moment hits all of them."""
    body = {"name": "live", "config": {}}
    async with client.post(f"{server.url}/sessions", json=body) as response:
        live = (await response.json())["id"]
    addresses = {
        "GET /api/status": "/api/status",
        "GET /sessions": "/sessions",
        "GET /sessions?limit=10": "/sessions?limit=10",
        "GET /sessions/{id} (live)": f"/sessions/{live}",
        "GET /sessions/{id} (stored)": f"/sessions/{known}",
    }
    measured: dict[str, list[float]] = {name: [] for name in addresses}
    for _ in range(rounds):
        for name, path in addresses.items():
            measured[name].append(await rate(client, server.url + path, seconds / len(addresses)))
    base = measured["GET /api/status"]
    good = True
    for name, rates in measured.items():
        ratio = statistics.median(one / other for one, other in zip(rates, base, strict=True))
        good &= ratio >= TARGET
        print(f"{name:32} {statistics.median(rates):8.0f} /s   ratio {ratio:5.2f}   (>= {TARGET})")
    return good


async def rate(client: aiohttp.ClientSession, url: str, seconds: float) -> float:
    """Answers a second over a few connections that are kept."""
    end = time.perf_counter() + seconds

    async def ask() -> int:
        count = 0
        while time.perf_counter() < end:
            async with client.get(url) as response:
                await response.read()
                assert response.status == 200, response.status
            count += 1
        return count

    started = time.perf_counter()
    counts = await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - started)


async def first_status(client: aiohttp.ClientSession, server: LiveServer) -> bool:
    """From a message on ``/ws`` to the first ``status`` that it causes: 50 messages, each stopped at once."""
    async with client.post(f"{server.url}/sessions", json={}) as response:
        session = await response.json()
    took = []
    async with client.ws_connect(f"{server.ws_url}/ws/{session['id']}") as socket:
        await socket.receive()
        for _ in range(50):
            started = time.perf_counter()
            await socket.send_str('{"content": "Look"}')
            await until(socket, "status")
            took.append((time.perf_counter() - started) * 1000)
            await socket.send_str('{"type": "stop"}')
            await until(socket, "agent_response")
            await until(socket, "status", "idle")
    median = statistics.median(took)
    worst = statistics.quantiles(took, n=20)[-1]
    print(f"message on /ws -> first status   p50 {median:.2f} ms   p95 {worst:.2f} ms   (<= {MESSAGE_MS:g})")
    return median <= MESSAGE_MS


async def until(socket: aiohttp.ClientWebSocketResponse, kind: str, status: str | None = None) -> None:
    while True:
        message = json.loads((await socket.receive()).data)
        if message["type"] == kind and status in (None, message.get("status")):
            return


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
