"""Twenty busy sessions, two viewers and two chat clients each: is anything lost, late, or growing?

    .venv/bin/python -m benchmarks.load [--minutes 10] [--sessions 20] [--desktop docker] [--think 2]

One real server process. The sessions work all the time: the demo model, which takes ``--think`` seconds for a reply as
a real one would (more or less, so that they do not march in step), on containers or, where memory does not
allow as many, on local desktops (``--desktop local``). Each viewer reads ``/vnc`` as a browser would, each chat client
checks that its sequence has no gap and no repetition. Meanwhile ``GET /api/status`` of the same Jupyter server is
timed, the server's event loop measures how late its timers are (a small extension of its own), and its memory is
sampled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
import websockets

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.live_server import LiveServer

PROBE = """
import asyncio, json, os, random
from cambio_lab.agent.demo import DemoTransport
lags = []
answer = DemoTransport.handle_async_request
async def think_first(self, request):
    await asyncio.sleep(float(os.environ["CAMBIO_THINK"]) * random.uniform(0.5, 1.5))
    return await answer(self, request)
DemoTransport.handle_async_request = think_first
async def watch():
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.05
        await asyncio.sleep(0.05)
        lags.append(loop.time() - due)
        if len(lags) % 100 == 0:
            with open(os.environ["CAMBIO_LAG_FILE"], "w") as file:
                json.dump(lags, file)
def _load_jupyter_server_extension(app):
    app.io_loop.add_callback(lambda: setattr(app, "lag_task", asyncio.ensure_future(watch())))
def _jupyter_server_extension_points():
    return [{"module": "lag_probe"}]
"""


@dataclass
class Counts:
    """What the clients saw."""

    events: int = 0
    turns: int = 0
    errors: int = 0
    gaps: int = 0
    frames: int = 0
    frame_bytes: int = 0
    reconnects: int = 0
    status_ms: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)


async def chat(server: LiveServer, session_id: str, counts: Counts, speak: bool, stop: asyncio.Event) -> None:
    """Read everything; the one that speaks sends the next message as soon as a turn has ended."""
    position: int | None = None
    while not stop.is_set():
        after = "" if position is None else f"&after={position}"
        url = f"{server.ws_url}/ws/{session_id}?stream=true&token={server.token}{after}"
        try:
            async with websockets.connect(url, max_size=None) as socket:
                first = json.loads(await socket.recv())
                position = first["sequence"] if position is None else position
                if speak and first["status"] == "idle":
                    await socket.send(json.dumps({"content": "go on"}))
                async for frame in socket:
                    message = json.loads(frame)
                    if "sequence" not in message:
                        continue
                    counts.gaps += message["sequence"] != position + 1
                    position = message["sequence"]
                    counts.events += 1
                    counts.errors += message["type"] == "error"
                    if message["type"] == "agent_response" and speak:
                        counts.turns += 1
                        await socket.send(json.dumps({"content": "go on"}))
                    if stop.is_set():
                        return
        except (websockets.ConnectionClosed, OSError):
            if not stop.is_set():
                counts.reconnects += 1
                await asyncio.sleep(0.2)


async def view(server: LiveServer, session_id: str, counts: Counts, stop: asyncio.Event) -> None:
    """A VNC viewer: handshake, then ask for each update when the last one has come."""
    url = f"{server.ws_url}/vnc/{session_id}?token={server.token}"
    async with websockets.connect(url, max_size=None, subprotocols=[websockets.Subprotocol("binary")]) as socket:
        buffer = b""

        async def take(size: int) -> bytes:
            nonlocal buffer
            while len(buffer) < size:
                data = await socket.recv()
                assert isinstance(data, bytes)
                counts.frame_bytes += len(data)
                buffer += data
            taken, buffer = buffer[:size], buffer[size:]
            return taken

        await take(12)
        await socket.send(b"RFB 003.008\n")
        kinds = await take((await take(1))[0])
        assert 1 in kinds, "the proxy answers the password itself"
        await socket.send(b"\x01")
        await take(4)
        await socket.send(b"\x01")
        header = await take(24)
        await take(struct.unpack(">I", header[20:])[0])
        width, height = struct.unpack(">HH", header[:4])
        await socket.send(struct.pack(">BxH2i", 2, 2, 16, 0))  # ZRLE, Raw
        incremental = 0
        while not stop.is_set():
            await socket.send(struct.pack(">BBHHHH", 3, incremental, 0, 0, width, height))
            incremental = 1
            kind = (await take(1))[0]
            if kind != 0:
                await other(kind, take)
                continue
            (rectangles,) = struct.unpack(">xH", await take(3))
            for _ in range(rectangles):
                _, _, w, h, encoding = struct.unpack(">HHHHi", await take(12))
                await take(struct.unpack(">I", await take(4))[0] if encoding == 16 else w * h * 4)
            counts.frames += 1
            await asyncio.sleep(0.05)


async def other(kind: int, take: Any) -> None:
    if kind == 3:  # the clipboard
        await take(struct.unpack(">3xi", await take(7))[0])
    elif kind != 2:
        raise AssertionError(f"message {kind}")


async def ask_status(server: LiveServer, counts: Counts, stop: asyncio.Event) -> None:
    async with server.client() as client:
        while not stop.is_set():
            began = time.perf_counter()
            (await client.get("/api/status")).raise_for_status()
            counts.status_ms.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.1)


async def sample_memory(server: LiveServer, counts: Counts, stop: asyncio.Event) -> None:
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    while not stop.is_set():
        counts.memory.append(process.memory_info().rss)
        await asyncio.sleep(1)


async def open_session(client: httpx2.AsyncClient) -> str:
    answer = await client.post("/sessions", json={"config": {"approval": "never"}}, timeout=120)
    if answer.status_code != 200:
        raise RuntimeError(answer.text)
    return str(answer.json()["id"])


async def run(minutes: float, sessions: int, desktop: str, think: float) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="load"))
    (folder / "lag_probe.py").write_text(PROBE)
    lag_file = folder / "lags.json"
    environment = {
        "CAMBIO_LAB_POOL_SIZE": "0",
        "CAMBIO_LAB_MAX_DESKTOPS": str(sessions),
        "CAMBIO_LAG_FILE": str(lag_file),
        "CAMBIO_THINK": str(think),
        "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}",
    }
    server = LiveServer(
        "--ServerApp.jpserver_extensions={'lag_probe': True, 'cambio_lab': True}",
        data_dir=folder / "data",
        desktop=desktop,
        env=environment,
        command="server",
    )
    await server.start(180)
    counts, stop = Counts(), asyncio.Event()
    try:
        async with server.client() as client:
            ids = [await open_session(client) for _ in range(sessions)]
        began = time.monotonic()
        tasks = [asyncio.create_task(chat(server, one, counts, speak, stop)) for one in ids for speak in (True, False)]
        tasks += [asyncio.create_task(view(server, one, counts, stop)) for one in ids for _ in range(2)]
        tasks += [asyncio.create_task(work(server, counts, stop)) for work in (ask_status, sample_memory)]
        done, _ = await asyncio.wait(tasks, timeout=minutes * 60, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        took = time.monotonic() - began
        lost = counts.gaps
        stop.set()
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await server.stop(60)
    lags = sorted(json.loads(lag_file.read_text())[200:]) if lag_file.exists() else []
    return report(counts, lost, lags, took) | {"sessions": sessions, "desktop": desktop, "think": think}


def report(counts: Counts, lost: int, lags: list[float], took: float) -> dict[str, Any]:
    half = counts.memory[len(counts.memory) // 2 :]
    third = max(1, len(half) // 3)
    growth = statistics.mean(half[-third:]) - statistics.mean(half[:third])
    return {
        "minutes": round(took / 60, 2),
        "load_average": round(os.getloadavg()[1], 1),
        "events": counts.events,
        "turns": counts.turns,
        "lost_or_reordered": lost,
        "errors": counts.errors,
        "reconnects": counts.reconnects,
        "frames": counts.frames,
        "frame_megabytes": round(counts.frame_bytes / 1e6, 1),
        "status_ms": {"p50": quantile(counts.status_ms, 0.5), "p99": quantile(counts.status_ms, 0.99)},
        "loop_lag_ms": {name: quantile([lag * 1000 for lag in lags], at) for name, at in (("p50", 0.5), ("p99", 0.99))},
        "memory_megabytes": {
            "peak": round(max(counts.memory) / 1e6),
            "growth_in_second_half": round(growth / 1e6, 1),
            "each_half_minute": [round(value / 1e6) for value in counts.memory[::30]],
        },
    }


def quantile(values: list[float], at: float) -> float | None:
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * at))], 2) if ordered else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--desktop", choices=("docker", "local"), default="docker")
    parser.add_argument("--think", type=float, default=2.0, help="seconds that the model takes for a reply")
    arguments = parser.parse_args()
    host = subprocess.run(["scripts/engine", "host"], capture_output=True, text=True, check=False)
    if host.returncode == 0:
        os.environ["DOCKER_HOST"] = host.stdout.strip()
    print(
        json.dumps(
            asyncio.run(run(arguments.minutes, arguments.sessions, arguments.desktop, arguments.think)), indent=1
        )
    )


if __name__ == "__main__":
    main()
