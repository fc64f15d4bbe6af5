"""A desktop from HTTP: how long ``POST /sessions`` takes, when one is ready and when none is, twenty at once, and how
fast it is gone. What is cold is measured in turn with `docker run` of the same image to the first byte of RFB.

python -m benchmarks.starting [--rounds 15] [--at-once 20]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.desktop import bare_run
from cambio_lab.desktop.docker.containers import SERVER_LABEL
from cambio_lab.desktop.docker.engine import Engine, EngineError
from cambio_lab.desktop.docker.image import context_digest
from tests.live_server import LiveServer


async def ready(engine: Engine, server_id: str) -> None:
    """Until the pool has a desktop, and a moment more."""
    filters = {"label": f"{SERVER_LABEL}={server_id}", "status": "running"}
    for _ in range(600):
        if await engine.call(lambda client: client.containers(filters=filters)):
            await asyncio.sleep(1.5)
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the pool was not filled")


async def gone(engine: Engine, container: str) -> None:
    """Until the engine knows the container no more."""
    while True:
        try:
            await engine.call(lambda client: client.inspect_container(container))
        except EngineError as error:
            if error.status == 404:
                return
            raise
        await asyncio.sleep(0.005)


async def warm(client: httpx2.AsyncClient, engine: Engine, server_id: str, rounds: int) -> None:
    posts, deletions, ends = [], [], []
    for _ in range(rounds):
        await ready(engine, server_id)
        begin = time.perf_counter()
        answer = await client.post("/sessions", json={})
        posts.append((time.perf_counter() - begin) * 1000)
        assert answer.status_code == 200, answer.text
        session = answer.json()
        begin = time.perf_counter()
        await client.delete(f"/sessions/{session['id']}")
        replied = time.perf_counter()
        deletions.append((replied - begin) * 1000)
        await gone(engine, session["container_id"])
        ends.append((time.perf_counter() - replied) * 1000)
    for name, values in (("POST /sessions, warm", posts), ("DELETE", deletions), ("reply to container gone", ends)):
        print(f"{name:28} p50 {statistics.median(values):7.1f} ms   max {max(values):7.1f} ms")


async def cold(client: httpx2.AsyncClient, engine: Engine, rounds: int) -> None:
    """The very first request of a server counts, too."""
    image = f"cambio-lab-desktop:{context_digest()}"
    await bare_run(image)
    ours, bare = [], []
    for _ in range(rounds):
        begin = time.perf_counter()
        answer = await client.post("/sessions", json={})
        ours.append((time.perf_counter() - begin) * 1000)
        assert answer.status_code == 200, answer.text
        await client.delete(f"/sessions/{answer.json()['id']}")
        await gone(engine, answer.json()["container_id"])
        bare.append(await bare_run(image))
    middle, floor = statistics.median(ours), statistics.median(bare)
    print(f"{'POST /sessions, cold':28} p50 {middle:7.1f} ms   max {max(ours):7.1f} ms   first {ours[0]:7.1f} ms")
    print(f"{'docker run to RFB':28} p50 {floor:7.1f} ms   max {max(bare):7.1f} ms   cold is {middle / floor:.2f} x it")


async def together(client: httpx2.AsyncClient, count: int) -> None:
    begin = time.perf_counter()
    answers = await asyncio.gather(*(client.post("/sessions", json={}) for _ in range(count)))
    took = time.perf_counter() - begin
    print(f"{count} at once: {dict(Counter(answer.status_code for answer in answers))} in {took:.1f} s")
    refused: list[dict[str, Any]] = [answer.json() for answer in answers if answer.status_code != 200]
    if refused:
        print(f"  the others: {refused[0]['error']}: {refused[0]['message']}")
    made = [answer.json()["id"] for answer in answers if answer.status_code == 200]
    await asyncio.gather(*(client.delete(f"/sessions/{session}") for session in made))


async def main(options: argparse.Namespace) -> None:
    engine = Engine()
    with tempfile.TemporaryDirectory() as folder:
        environment = {"CAMBIO_LAB_POOL_SIZE": "0"}
        server = LiveServer("--no-token", data_dir=Path(folder), desktop="docker", env=environment)
        await server.start()
        try:
            async with httpx2.AsyncClient(base_url=server.url, timeout=120) as client:
                await asyncio.sleep(2)
                await cold(client, engine, options.rounds)
        finally:
            await server.stop()
    for capacity in (32, options.at_once // 2):
        with tempfile.TemporaryDirectory() as folder:
            environment = {"CAMBIO_LAB_MAX_DESKTOPS": str(capacity)}
            server = LiveServer("--no-token", data_dir=Path(folder), desktop="docker", env=environment)
            await server.start()
            try:
                async with httpx2.AsyncClient(base_url=server.url, timeout=120) as client:
                    if capacity == 32:
                        identity = Path(folder, "cambio_lab", "server-id")
                        await warm(client, engine, await asyncio.to_thread(identity.read_text), options.rounds)
                    print(f"capacity {capacity}")
                    await together(client, options.at_once)
            finally:
                await server.stop()
    engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--at-once", type=int, default=20)
    asyncio.run(main(parser.parse_args()))
