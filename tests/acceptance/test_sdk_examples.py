"""The reference's own clients, unchanged, against the server alone, on Docker desktops; afterwards none is left.

They speak to port 8000 without a token, as written.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.observer import containers_of

SPEC = Path(__file__).parent.parent / "spec"

CLIENTS = {
    "python": (
        [sys.executable, "sdk_example.py"],
        ["Created session: ", "Agent response: ", "Chat history: 2", "Session ended"],
    ),
    "node": (
        ["node", "--experimental-websocket", "sdk_example.mjs"],
        ["Created session: ", "Agent: ", "History: 2", "Session ended"],
    ),
}


@pytest.mark.docker
@pytest.mark.parametrize("language", CLIENTS)
async def test_the_references_client_runs_unchanged(
    language: str, start_server: Callable[..., Any], docker_host: str
) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 8000)) != 0, "port 8000 is taken: the example clients cannot be tried"
    server = await start_server("--no-token", desktop="docker", port=8000, env={"CAMBIO_LAB_POOL_SIZE": "0"})
    command, expected = CLIENTS[language]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=SPEC, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    lines = out.decode().splitlines()
    assert process.returncode == 0, err.decode()
    for start in expected:
        assert any(line.startswith(start) for line in lines), lines
    assert any("demo model" in line for line in lines), lines
    created = await containers_of(server, docker_host)
    await server.stop()
    assert await containers_of(server, docker_host) == []
    assert created == [], "the session's own container goes when the client ends it"
