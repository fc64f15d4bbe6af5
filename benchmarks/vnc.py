"""A viewer's stream through the server, through websockify and direct: throughput and round trip, same client.

    python -m benchmarks.vnc [--rounds 5] [--frames 25] [--desktop docker|local]

The three ways take turns on one desktop. A frame is the whole 1280x800 screen, raw (4 MB): its round trip is from the
request to the last byte. The shortest round trip is a request for one pixel and its answer: what every movement of a
mouse waits for. The last line is what a viewer that stops reading costs the server.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psutil

from cambio_lab.desktop import make_provider
from cambio_lab.desktop.base import VncEndpoint
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.rfb.stream import answer
from cambio_lab.settings import Settings
from tests.live_server import LiveServer, free_port

FORMAT = struct.pack(">Bxxx4B3H3Bxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
ENCODINGS = struct.pack(">BxHi", 2, 1, 0)
FRAME = 1280 * 800 * 4
PIXELS = 300


class Viewer:
    """RFB over anything that gives and takes bytes; counts pixels, keeps none."""

    def __init__(self, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]) -> None:
        self._receive, self.send = receive, send
        self._pending = b""

    async def take(self, count: int) -> bytes:
        while len(self._pending) < count:
            self._pending += await self._receive()
        data, self._pending = self._pending[:count], self._pending[count:]
        return data

    async def skip(self, count: int) -> None:
        count -= len(self._pending)
        rest = self._pending[count:] if count < 0 else b""
        while count > 0:
            data = await self._receive()
            count -= len(data)
            rest = data[len(data) + count :] if count < 0 else b""
        self._pending = rest

    async def greet(self, password: str | None) -> None:
        await self.take(12)
        await self.send(b"RFB 003.008\n")
        offered = await self.take((await self.take(1))[0])
        if password is not None and 2 in offered:
            await self.send(b"\x02")
            await self.send(answer(await self.take(16), password))
        else:
            await self.send(b"\x01")
        assert await self.take(4) == b"\0\0\0\0"
        await self.send(b"\x01")
        await self.take(20)
        await self.take(struct.unpack(">I", await self.take(4))[0])
        await self.send(FORMAT + ENCODINGS)

    async def update(self, width: int, height: int) -> None:
        """Ask for a region and receive it whole."""
        await self.send(struct.pack(">BB4H", 3, 0, 0, 0, width, height))
        left = width * height
        while left > 0:
            _, count = struct.unpack(">xBH", await self.take(4))
            for _ in range(count):
                _, _, w, h, _ = struct.unpack(">4Hi", await self.take(12))
                await self.skip(w * h * 4)
                left -= w * h


class Measured(NamedTuple):
    rate: float
    """Megabytes per second of whole frames."""
    frame: float
    """Median milliseconds of a whole frame."""
    pixel: float
    """Median milliseconds of one pixel."""


async def measure(viewer: Viewer, frames: int) -> Measured:
    await viewer.update(1280, 800)
    whole = await trips(viewer, 1280, 800, frames)
    pixels = await trips(viewer, 1, 1, PIXELS)
    return Measured(frames * FRAME / sum(whole) / 1e3, statistics.median(whole), statistics.median(pixels))


async def trips(viewer: Viewer, width: int, height: int, count: int) -> list[float]:
    """The milliseconds of each of ``count`` updates of that size."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        await viewer.update(width, height)
        found.append((time.perf_counter() - start) * 1000)
    return found


async def direct(endpoint: VncEndpoint, frames: int) -> Measured:
    if endpoint.unix_path:
        reader, writer = await asyncio.open_unix_connection(endpoint.unix_path, limit=1 << 20)
    else:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, limit=1 << 20)

    async def send(data: bytes) -> None:
        writer.write(data)

    viewer = Viewer(lambda: reader.read(1 << 20), send)
    await viewer.greet(endpoint.password)
    result = await measure(viewer, frames)
    writer.close()
    return result


async def websocket(url: str, password: str | None, frames: int) -> Measured:
    async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0, compress=0) as socket:
        viewer = Viewer(socket.receive_bytes, socket.send_bytes)
        await viewer.greet(password)
        return await measure(viewer, frames)


async def stalled(url: str, pid: int) -> float:
    """Megabytes that the server grows by while a viewer asks for 100 frames and reads none of them."""
    process = psutil.Process(pid)
    async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0, compress=0) as socket:
        viewer = Viewer(socket.receive_bytes, socket.send_bytes)
        await viewer.greet(None)
        await viewer.update(1280, 800)
        before = process.memory_info().rss
        socket._response.connection.transport.pause_reading()  # type: ignore[union-attr]
        peak = before
        for _ in range(100):
            await socket.send_bytes(struct.pack(">BB4H", 3, 0, 0, 0, 1280, 800))
            await asyncio.sleep(0.05)
            peak = max(peak, process.memory_info().rss)
        socket._response.connection.transport.abort()  # type: ignore[union-attr]
    return float(peak - before) / 1e6


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = LiveServer("--no-token", data_dir=Path(folder), desktop=options.desktop)
        await server.start()
        provider = await make_provider(Settings(pool_size=0), server_id="bench-vnc", kind=options.desktop)
        websockify: asyncio.subprocess.Process | None = None
        try:
            session = (await (server.client()).post("/sessions", json={})).json()
            # The other two ways need the password, so they get a desktop of the same kind that this process made.
            desktop = await provider.acquire("bench", DesktopOptions())
            endpoint = desktop.endpoint()
            port = free_port()
            target = f"--unix-target={endpoint.unix_path}" if endpoint.unix_path else f"{endpoint.host}:{endpoint.port}"
            quiet = asyncio.subprocess.DEVNULL
            websockify = await asyncio.create_subprocess_exec(
                *("websockify", f"127.0.0.1:{port}", target), stdout=quiet, stderr=quiet
            )
            await asyncio.sleep(1.5)
            url = f"{server.ws_url}/vnc/{session.get('session_id') or session['id']}"
            await rounds(options, endpoint, f"ws://127.0.0.1:{port}/", url)
            assert server.process is not None
            print(f"a viewer that stops reading: {await stalled(url, server.process.pid):.1f} MB")
        finally:
            if websockify is not None:
                websockify.kill()
                await websockify.wait()
            await provider.stop()
            await server.stop()


async def rounds(options: argparse.Namespace, endpoint: VncEndpoint, through: str, ours: str) -> None:
    results: dict[str, list[Measured]] = {"direct": [], "websockify": [], "server": []}
    for _ in range(options.rounds):
        results["direct"].append(await direct(endpoint, options.frames))
        results["websockify"].append(await websocket(through, endpoint.password, options.frames))
        results["server"].append(await websocket(ours, None, options.frames))
    other = results["websockify"]
    print(f"{'way':12}{'MB/s':>8}{'frame ms':>10}{'pixel ms':>10}   each x websockify, in the same round (median)")
    for way, found in results.items():
        own = [statistics.median(column) for column in zip(*found, strict=True)]
        ratios = [
            statistics.median(mine[column] / theirs[column] for mine, theirs in zip(found, other, strict=True))
            for column in range(len(own))
        ]
        print(f"{way:12}{own[0]:8.0f}{own[1]:10.2f}{own[2]:10.3f}   " + "".join(f"{ratio:8.2f}" for ratio in ratios))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--desktop", default="docker", choices=["docker", "local"])
    sys.exit(asyncio.run(main(parser.parse_args())))
