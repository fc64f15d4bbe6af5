"""The example notebooks run top to bottom on a real desktop, and what is saved of them tells what happened."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy
import pytest
from nbconvert import HTMLExporter, WebPDFExporter
from PIL import Image
from playwright.async_api import BrowserType

from ..conftest import CHROMIUM, CHROMIUM_FLAGS
from ..live_server import LiveServer
from .execute import NOTEBOOKS, ROOT, execute
from .test_record import Page, as_github

Outputs = list[dict[str, Any]]


def outputs(notebook: Any, kind: str) -> list[str]:
    """Every output of a MIME type, in order."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [o.data[kind] for cell in cells for o in cell.outputs if "data" in o and kind in o.data]


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def saved(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


async def test_runs_top_to_bottom(saved: Path, live: LiveServer, tmp_path: Path) -> None:
    before = {row["id"] for row in await active(live)}
    notebook = await execute(saved, live, tmp_path)
    text = json.dumps(notebook)
    assert live.token not in text and str(live.port) not in re.sub(r"[A-Za-z0-9+/]{200,}", "", text)
    assert not [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "error"]
    committed = kinds(nbformat.read(saved, as_version=4))
    pairs = list(zip(committed, kinds(notebook), strict=True))
    assert all(before <= now for before, now in pairs), f"run `python -m tests.jupyter.execute`: {pairs}"
    left = [row for row in await active(live) if row["id"] not in before]
    assert [row["name"] for row in left] == (["First session"] if saved == NOTEBOOKS[0] else []), "sessions left behind"
    async with live.client() as client:
        for row in left:
            await client.delete(f"/sessions/{row['id']}")


async def active(server: LiveServer) -> list[dict[str, Any]]:
    """The sessions that live."""
    async with server.client() as client:
        return list((await client.get("/sessions", params={"status": "active"})).json()["sessions"])


def kinds(notebook: Any) -> list[set[str]]:
    """For each code cell: which kinds of output it has. A slow machine adds a progress bar."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [{kind for o in cell.outputs for kind in (o.data if "data" in o else [o.output_type])} for cell in cells]


def test_what_is_committed_names_no_machine(saved: Path) -> None:
    text = saved.read_text()
    prose = re.sub(r"[A-Za-z0-9+/=]{200,}", "", text)
    for pattern in (
        r"/home/(?!user)",
        r"/root",
        r"/tmp/",
        r"token=",
        r"127\.0\.0\.1",
        r"localhost",
        str(ROOT),
    ):
        assert not re.search(pattern, prose), pattern
    assert len(text) < 600_000


def test_the_saved_page_remembers(saved: Path) -> None:
    """Through nbconvert and through a sanitiser: images with alternative texts, and the transcript."""
    notebook = nbformat.read(saved, as_version=4)
    page, _ = HTMLExporter().from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    plain = Page(as_github("".join(outputs(notebook, "text/html"))))
    shown = Page(page)
    embedded = [image for image in shown.images if (image["src"] or "").startswith("data:image/")]
    assert len(embedded) >= 1 + len(plain.images)
    assert all(image.get("alt") for image in plain.images)
    if "04" not in saved.name:
        assert len(plain.images) >= 3 and "demo model" in plain.words and "Filmstrip" in plain.words
    assert "demo model" in shown.words
    paper = [o.data for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o]  # LaTeX has no HTML
    assert any("image/png" in data for data in paper)
    assert "04" in saved.name or any("demo model" in data["text/plain"] for data in paper)


def test_the_first_notebook_shows_a_readable_desktop() -> None:
    """Its screenshot is full size, and the typed text stands in it as black and white pixels, not as a blur."""
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    encoded = outputs(notebook, "image/png")[-1]
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.size == (1280, 800)
        pixels = numpy.asarray(image.convert("L")).astype(int)
    sharp = numpy.abs(numpy.diff(pixels, axis=1)) > 120
    assert sharp.sum() > 500, "no text in the screenshot"


@pytest.mark.browser
def test_the_first_notebook_becomes_paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """HTML to PDF as ``nbconvert --to webpdf`` does it, with the system's Chromium; the images are on the pages."""
    launch = functools.partialmethod(BrowserType.launch, executable_path=CHROMIUM)
    monkeypatch.setattr(BrowserType, "launch", launch)
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    exporter = WebPDFExporter(browser_args=[*CHROMIUM_FLAGS])  # type: ignore[no-untyped-call]
    paper, _ = exporter.from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    (tmp_path / "first.pdf").write_bytes(paper)
    found = len(re.findall(rb"/Subtype ?/Image\b", paper))
    print(f"{len(paper) / 1e3:.0f} KB, {found} images")
    assert paper.startswith(b"%PDF-")
    assert found >= 4, "three steps and the desktop at the end"
