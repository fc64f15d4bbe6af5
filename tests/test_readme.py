"""The README's Python examples run word for word, in a real kernel, on a real server with the demo model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .kernels import Kernel
from .live_server import LiveServer

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)


async def test_the_examples_run(tmp_path: Path) -> None:
    assert BLOCKS
    server = LiveServer(data_dir=tmp_path)
    await server.start()
    try:
        async with Kernel({"CAMBIO_LAB_URL": server.url, "CAMBIO_LAB_TOKEN": server.token}) as kernel:
            for block in BLOCKS:
                cell = await kernel.run(block)
                assert "not awaited" not in cell.stream, cell.stream
    finally:
        await server.stop()


@pytest.mark.parametrize("block", BLOCKS)
def test_no_example_forgets_an_await(block: str) -> None:
    calls = re.findall(r"^.*\b(?:lab|session)\.(?:send|screenshot|history|end|create_session)\(.*$", block, re.M)
    assert all("await " in call for call in calls), calls
