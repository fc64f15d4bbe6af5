"""The image of a user's server, built from the wheel on the real engine: a sandbox inside a container."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import httpx2
import pytest
from websockets.asyncio.client import connect

from cambio_lab.desktop.docker.engine import Engine
from cambio_lab.desktop.docker.image import build_image

from .conftest import RESULTS
from .lab import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(1200)]
OPTIONS = "--cap-drop ALL --security-opt no-new-privileges"
ALLOWANCES = "--security-opt seccomp=unconfined --security-opt systempaths=unconfined"
"""What bubblewrap needs: to make namespaces, and to mount a /proc of its own. No capability."""


async def command(*arguments: str | Path) -> str:
    """The output of a program that succeeds."""
    process = await asyncio.create_subprocess_exec(*arguments, stdout=PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0, arguments
    return output.decode().strip()


@pytest.fixture
async def image(docker_host: str, tmp_path: Path) -> AsyncIterator[str]:
    """Built without an index: what it installs is in ``dist``."""
    dist = tmp_path / "dist"
    pip = (sys.executable, "-m", "pip")
    await command(*pip, "wheel", "-q", "--no-deps", "-w", dist, ROOT)
    (wheel,) = dist.iterdir()
    await command(*pip, *("download", "-q", "-d", dist, "-c", ROOT / "constraints.txt", f"{wheel}[lab]", "jupyterhub"))
    shutil.copy(ROOT / "docs/how-to/singleuser.Dockerfile", tmp_path / "Dockerfile")
    engine = Engine()
    base = await build_image(engine, "cambio-lab-desktop")
    engine.close()
    client = docker.from_env(timeout=900)
    tag = f"cambio-lab-user:{secrets.token_hex(4)}"
    arguments = {"BASE": base, "PIP_NO_INDEX": "1"}
    await asyncio.to_thread(client.images.build, path=str(tmp_path), buildargs=arguments, tag=tag, forcerm=True)
    yield tag
    client.images.remove(tag)
    client.close()


async def test_a_session_runs_in_the_image_of_a_user(image: str) -> None:
    token = secrets.token_hex(8)
    lab = ["jupyter", "lab", "--ip=0.0.0.0", "--ServerApp.port=8888", f"--IdentityProvider.token={token}"]
    options = ["--detach", "--init", "--publish=127.0.0.1::8888", "--env=CAMBIO_LAB_MODEL=demo"]
    options += [*OPTIONS.split(), *ALLOWANCES.split()]
    container = await command("docker", "run", *options, image, *lab)
    try:
        address = await command("docker", "port", container, "8888")
        headers = {"Authorization": f"token {token}"}
        async with httpx2.AsyncClient(base_url=f"http://{address}", headers=headers, timeout=60) as http:
            await _healthy(http)
            assert (await http.get("/health")).json()["services"]["desktop"].startswith("sandbox (isolated)")
            session = (await http.post("/sessions", json={})).raise_for_status().json()
            async with connect(f"ws://{address}/ws/{session['id']}", additional_headers=headers) as agent:
                await agent.send(json.dumps({"content": "Hello from a pod", "metadata": {}}))
                while (said := json.loads(await agent.recv()))["type"] != "agent_response":
                    assert said["type"] != "error", said
            assert "opened a terminal and typed your message" in said["content"]
            screenshot = (await http.get(f"/sessions/{session['id']}/screenshot")).raise_for_status().content
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "singleuser-image.png").write_bytes(screenshot)
    finally:
        print(await command("docker", "rm", "--force", container))


async def _healthy(http: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                if (await http.get("/health")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.2)
