"""The attacks of this folder while ten healthy sessions work: their turns complete and nothing waits for an attack."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import docker
import pytest

from benchmarks.load import PROBE, Counts, chat
from tests.live_server import LiveServer
from tests.messages_api import MessagesApi
from tests.messages_api.policies import View
from tests.messages_api.replies import Reply, reply, tool

from .measure import cost
from .test_connections import HALF, HALF_BODY, half_open, many_descriptors  # noqa: F401  (a fixture)
from .test_creation import post_and_leave
from .test_files import LONG_NAMES
from .test_requests import LENGTHS, exchange
from .test_run_files import doubling, mutated
from .test_viewers import SAYS, silent
from .test_xvnc import VIDEO, hostile_image  # noqa: F401  (a fixture)

SESSIONS = 10
FLOODS = ("full_screen_floods", "clipboard_bombs", "fences", "copy_rects", "zero_size_updates", "resizes")
FORGE = r"""
import os
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(pid) != os.getpid() and b"python3" in open(f"/proc/{pid}/cmdline", "rb").read():
                fd = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK)
                os.write(fd, b"\xff\xff\xff\xff" + b"x" * 60000)
                os.close(fd)
        except OSError:
            continue
"""


def flood(view: View) -> Reply:
    """A model that was talked round: its command writes without end."""
    if view.done % 3:
        return reply("Done.")
    return reply(tool("bash", command="printf '\\n%s' \"$CAMBIO_MARK\"; head -c 1500000000 /dev/zero"))


class Attacks:
    """Each method is one attack, which lasts some seconds."""

    def __init__(self, server: LiveServer, client: Any, hostile: dict[str, Any], engine: docker.APIClient) -> None:
        self.server, self.client, self.hostile, self.engine = server, client, hostile, engine
        self.path = f"/sessions/{hostile['id']}"

    async def inside(self, name: str, program: str) -> None:
        """Run a Python program as the user of the hostile desktop."""
        answer = await self.client.put(f"{self.path}/files/{name}", content=program.encode())
        assert answer.status_code < 300, answer.text
        command = ["sh", "-c", f"cd; DISPLAY=:1 setsid python3 {name} >{name}.log 2>&1 </dev/null &"]
        started = self.engine.exec_create(self.hostile["container_id"], command)["Id"]
        await asyncio.to_thread(self.engine.exec_start, started)

    async def noise(self) -> None:
        """Screens of noise, each of which the agent of that desktop, too, takes as a screenshot."""
        await self.inside("video.py", VIDEO)
        for _ in range(20):
            await self.client.get(f"{self.path}/screenshot")
            await asyncio.sleep(0.2)

    async def silent_viewers(self) -> None:
        viewers = [await silent(self.server, f"/vnc/{self.hostile['id']}", says) for says in SAYS.values()]
        await asyncio.sleep(5)
        for viewer in viewers:
            viewer.close()

    async def deaf_readers(self) -> None:
        readers = [await silent(self.server, "/ws?stream=true") for _ in range(100)]
        await asyncio.sleep(3)
        for reader in readers:
            reader.close()

    async def output_flood(self) -> None:
        async with (
            aiohttp.ClientSession(headers=self.server.headers) as made,
            made.ws_connect(f"{self.server.ws_url}/ws/{self.hostile['id']}") as socket,
            asyncio.timeout(120),
        ):
            await socket.send_json({"content": "Flood."})
            while (await socket.receive_json())["type"] not in ("agent_response", "error"):
                pass

    async def half_open_requests(self) -> None:
        for data in (HALF, HALF_BODY):
            async with half_open(self.server, 1500, data):
                await asyncio.sleep(1)

    async def sockets_of_another_origin(self) -> None:
        headers = {**self.server.headers, "Origin": "http://evil.example", "Cookie": "_xsrf=1"}
        async with aiohttp.ClientSession(headers=headers) as page:
            for _ in range(60):
                tries = [page.ws_connect(f"{self.server.ws_url}/ws/{self.hostile['id']}?token=no") for _ in range(5)]
                await asyncio.gather(*tries, return_exceptions=True)

    async def long_names(self) -> None:
        await self.inside("names.py", LONG_NAMES)
        for _ in range(15):
            await self.client.get(f"{self.path}/files/many/")
            await asyncio.sleep(0.2)

    async def forged_answers(self) -> None:
        await self.inside("forge.py", FORGE)
        for _ in range(10):
            await self.client.get(f"{self.path}/files/")
            await self.client.put(f"{self.path}/files/one", content=b"1" * 100_000)

    async def run_files(self) -> None:
        for name in ("doubling", "mutated-1", "mutated-2"):
            config = {"record": f"{name}.cambio", "record_mode": "none"}
            for _ in range(3):
                answer = await self.client.post("/sessions", json={"config": config})
                assert answer.status_code in (200, 409, 422), answer.text
                if answer.status_code == 200:
                    await self.client.delete(f"/sessions/{answer.json()['id']}")

    async def malformed_lengths(self) -> None:
        for _ in range(20):
            for length in LENGTHS.values():
                await exchange(self.server, b"POST /sessions HTTP/1.1\r\nContent-Length: " + length + b"\r\n")

    async def creations_left(self) -> None:
        await asyncio.gather(*(post_and_leave(self.server, 0.05, {}) for _ in range(5)))
        await asyncio.sleep(3)


@pytest.fixture
async def server(docker_host: str, tmp_path: Path) -> AsyncIterator[LiveServer]:
    (tmp_path / "doubling.cambio").write_bytes(doubling(34))
    for seed in (1, 2):
        (tmp_path / f"mutated-{seed}.cambio").write_bytes(mutated(seed))
    (tmp_path / "lag_probe.py").write_text(PROBE)  # the demo model takes its time, as a real one does
    environment = {"CAMBIO_LAB_POOL_SIZE": "0", "CAMBIO_LAB_MAX_DESKTOPS": "20", "CAMBIO_THINK": "1"}
    environment |= {"CAMBIO_LAG_FILE": str(tmp_path / "lags.json")}
    environment |= {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    with MessagesApi(flood) as model:
        found = LiveServer(
            "--ServerApp.jpserver_extensions={'lag_probe': True, 'cambio_lab': True}",
            data_dir=tmp_path,
            desktop="docker",
            command="server",
            env={**environment, **model.environment},
        )
        await found.start()
        yield found
        await found.stop(60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_attacks_beside_ten_sessions_that_work(
    server: LiveServer,
    docker_host: str,
    hostile_image: Callable[[str], str],  # noqa: F811
    many_descriptors: None,  # noqa: F811
) -> None:
    images = [await asyncio.to_thread(hostile_image, attack) for attack in FLOODS]
    counts, stop = Counts(), asyncio.Event()
    async with server.client() as client, contextlib.AsyncExitStack() as stack:
        made = [await client.post("/sessions", json={"config": {"max_steps": 1000}}) for _ in range(SESSIONS)]
        ids = [one.raise_for_status().json()["id"] for one in made]
        config = {"model": "claude-opus-5", "tools": ["computer", "bash"]}
        hostile = (await client.post("/sessions", json={"config": config})).raise_for_status().json()
        engine = stack.enter_context(contextlib.closing(docker.APIClient(base_url=docker_host)))
        attacks = Attacks(server, client, hostile, engine)
        work = [asyncio.create_task(chat(server, one, counts, True, stop)) for one in ids]

        async def nothing() -> None:
            await asyncio.sleep(8)

        async def flooding(image: str) -> None:
            answer = await client.post("/sessions", json={"config": {"image": image}})
            await asyncio.sleep(4)
            if answer.status_code == 200:
                await client.delete(f"/sessions/{answer.json()['id']}")

        steps: dict[str, Callable[[], Awaitable[None]]] = {"no attack": nothing}
        for name, image in zip(FLOODS, images, strict=True):
            steps[f"RFB {name}"] = lambda image=image: flooding(image)  # type: ignore[misc]
        for method in (
            *(attacks.silent_viewers, attacks.deaf_readers, attacks.half_open_requests, attacks.run_files),
            *(attacks.sockets_of_another_origin, attacks.malformed_lengths, attacks.creations_left),
            *(attacks.long_names, attacks.noise, attacks.output_flood, attacks.forged_answers),
        ):
            steps[method.__name__.replace("_", " ")] = method
        failed = []
        for name, attack in steps.items():
            turns = counts.turns
            async with cost(server) as found:
                begin = time.monotonic()
                await attack()
                await asyncio.sleep(max(0.0, begin + 3 - time.monotonic()))  # a turn takes a second or two
            print(f"{name:26} {found}; {counts.turns - turns} turns", flush=True)
            if found.percentile(0.99) > 20 or found.log > 300_000 or counts.turns == turns:
                failed.append(f"{name}: {found}")
            for task in work:
                assert not task.done() or task.result()
        stop.set()
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        print(f"{counts.turns} turns, {counts.errors} errors, {counts.gaps} gaps")
        assert (counts.errors, counts.gaps, failed) == (0, 0, [])
    assert "Traceback" not in server.log()
