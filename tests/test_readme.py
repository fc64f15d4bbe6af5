"""The README's Python examples run word for word, in a real kernel, on a real server with the demo model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

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
            await kernel.run(f"import os; os.chdir({str(tmp_path)!r})")
            for block in BLOCKS:
                cell = await kernel.run(block)
                assert "not awaited" not in cell.stream, cell.stream
        assert (tmp_path / "guest-book.cambio").stat().st_size > 10_000
    finally:
        await server.stop()


def test_the_film_is_small_and_moves() -> None:
    film = README.parent / "docs/images/first-session.webp"
    assert film.name in README.read_text(encoding="utf-8")
    assert film.stat().st_size < 3_000_000
    with Image.open(film) as image:
        assert getattr(image, "n_frames", 1) > 50


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []


@pytest.mark.parametrize("block", BLOCKS)
def test_no_example_forgets_an_await(block: str) -> None:
    calls = re.findall(r"^.*\b(?:lab|session)\.(?:send|screenshot|history|end|create_session)\(.*$", block, re.M)
    assert all("await " in call for call in calls), calls
