"""Every code block of the tutorial and the how-to guides runs, or where it needs another service, compiles."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import tomllib
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from ..kernels import Kernel
from ..live_server import LiveServer
from .blocks import DOCS, blocks, pages

NEEDS_ANOTHER_SERVICE = {"clusters.md", "jupyterhub.md", "mcp.md", "inspect.md"}
OWN_PROGRAMS = {"api-clients.md"}
DESKTOP = {"network.md": "docker"}
"""Pages that need more than a local desktop."""
EXECUTED = [
    page for page in pages() if page.name not in NEEDS_ANOTHER_SERVICE | OWN_PROGRAMS and blocks(page, "python")
]


@asynccontextmanager
async def serving(directory: Path, desktop: str = "local") -> AsyncIterator[LiveServer]:
    server = LiveServer(data_dir=directory, cwd=directory, desktop=desktop)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
async def test_the_python_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    async with (
        serving(tmp_path, DESKTOP.get(page.name, "local")) as server,
        Kernel({"CAMBIO_LAB_URL": server.url, "CAMBIO_LAB_TOKEN": server.token}) as kernel,
    ):
        await kernel.run(f"import os; os.chdir({str(tmp_path)!r})\nfrom cambio_lab import Workbench\nlab = Workbench()")
        for block in blocks(page, "python"):
            cell = await kernel.run(block)
            assert "not awaited" not in cell.stream, cell.stream


async def test_the_api_clients_run(tmp_path: Path) -> None:
    node = ["node", "--no-warnings", "--experimental-websocket"]
    async with serving(tmp_path) as server:
        for language, command in (("python", [sys.executable]), ("javascript", [*node, "--input-type=module"])):
            (block,) = blocks(DOCS / "how-to/api-clients.md", language)
            environment = {**server.environment, "CAMBIO_LAB_URL": server.url, "CAMBIO_LAB_TOKEN": server.token}
            process = await asyncio.create_subprocess_exec(
                *command, "-", env=environment, stdin=PIPE, stdout=PIPE, stderr=STDOUT
            )
            output, _ = await asyncio.wait_for(process.communicate(block.encode()), 60)
            assert process.returncode == 0, output.decode()
            assert "agent_response" in output.decode()


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_block_of_a_page_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for block in blocks(page, "bash"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=10)
        assert done.returncode == 0, done.stderr
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block)
    for block in blocks(page, "toml"):
        assert tomllib.loads(block)


@pytest.mark.parametrize("page", sorted((Path(__file__).parents[2] / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_block_of_a_page_is_closed(page: Path) -> None:
    fences = [line for line in page.read_text("utf-8").splitlines() if line.startswith("```")]
    assert all(fence == "```" for fence in fences[1::2]), fences
    assert len(fences) % 2 == 0
