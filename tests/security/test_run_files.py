"""Run files that were made to harm: nothing of them is executed, fetched or expanded without bounds."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import tracemalloc
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from playwright.async_api import async_playwright, expect

from cambio_lab.errors import BundleRefused, ConfigurationError, InvalidRequest, RunError
from cambio_lab.recording import Contents
from cambio_lab.recording.run_file import packed, unpack
from cambio_lab.replay.desktop_replay import DesktopReplay, Look
from cambio_lab.replay.runs import ForkPoint, replay
from cambio_lab.reports import Run, compare
from cambio_lab.reports.dataset import DatasetExporter, conversation, step_rows
from cambio_lab.reports.trajectories import atif
from cambio_lab.reports.video import Film
from tests.browser.lab import lab_server, open_lab
from tests.conftest import CHROMIUM, CHROMIUM_FLAGS

RUNS = Path(__file__).resolve().parents[2] / "notebooks" / "runs"
FIRST = Path(__file__).resolve().parents[1] / "replay" / "version_one"
GOLDEN = FIRST / "02-watch-stop-approve-1.cambio"
MARKERS = (
    '<img src=x onerror="window.hit=1">',
    "</script><script>window.hit=1</script>",
    "\"'><svg/onload=window.hit=1>",
    "[x](javascript:window.hit=1)",
    "![x](http://198.51.100.7/x.png)",
    '<a href="javascript:window.hit=1">x</a> http://198.51.100.7/y www.example.com',
    "{{ 7 * 7 }}{% raw %}",
    "\u202e\x1b]0;x\x07```\n# x\n<iframe src=http://198.51.100.7>",
)
KEPT = {"format", "kind", "method", "sha256", "request_sha256", "media_type", "role", "type", "base64", "data", "bytes"}
KEPT |= {"status", "verdict", "ended"}


def planted(value: Any, marker: str, key: str = "") -> Any:
    """A copy in which every text has the marker at its end, where the format leaves the text free."""
    if isinstance(value, dict):
        return {name: planted(item, marker, name) for name, item in value.items()}
    if isinstance(value, list):
        return [planted(item, marker, key) for item in value]
    return f"{value}{marker}" if isinstance(value, str) and key not in KEPT and value != "client" else value


def hostile(marker: str) -> Run:
    """The shipped run with ``marker`` in every text of it, requests and replies included, through its file."""
    contents = unpack(GOLDEN)
    lists = {name: [planted(row, marker) for row in rows] for name, rows in contents.lists.items()}
    for exchange, original in zip(lists["exchanges"], contents.exchanges, strict=True):
        exchange["headers"] = original["headers"]  # printable ASCII by the format
    made = Contents(planted(contents.manifest, marker), screenshots=contents.screenshots, find=contents.find, **lists)
    return Run.load(packed(made))


def live_replay(marker: str) -> DesktopReplay:
    """A desktop replay that failed with ``marker`` in its words."""
    shot = Run.load(GOLDEN).screenshot(1)
    return DesktopReplay([Look(1, False, 0.1, shot, shot)], failure=marker)


FOUND_ALIVE = """() => ({hit: window.hit || 0,
  frames: document.querySelectorAll('iframe[src*="198.51"],object,embed,form[action]').length,
  links: Array.from(document.querySelectorAll('.jp-OutputArea [href]')).map(e => e.getAttribute('href'))
    .filter(href => !href.startsWith('#')),
  handlers: Array.from(document.querySelectorAll('.jp-OutputArea *')).filter(e =>
    e.getAttributeNames().some(n => n.startsWith('on'))).length})"""


@pytest.mark.browser
@pytest.mark.parametrize("trusted", [True, pytest.param(False, marks=pytest.mark.slow)])
async def test_a_saved_notebook_of_hostile_runs_is_harmless_in_jupyterlab(tmp_path: Path, trusted: bool) -> None:
    data_dir = tmp_path / "jupyter"
    server = lab_server(tmp_path, desktop="local", env={"JUPYTER_DATA_DIR": str(data_dir)})
    settings = tmp_path / "config" / "lab" / "user-settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')  # every cell is rendered
    path = tmp_path / "notebooks" / "hostile.ipynb"
    notebook = nbformat.v4.new_notebook()
    for marker in MARKERS:
        run = hostile(marker)
        shown = (run, compare(run, Run.load(GOLDEN)), live_replay(marker))
        data = [item._repr_mimebundle_() for item in shown] + [{"text/markdown": run.to_markdown()}]
        outputs = [nbformat.v4.new_output("display_data", data=bundle) for bundle in data]
        notebook.cells.append(nbformat.v4.new_code_cell("run", outputs=outputs))
    nbformat.write(notebook, path)
    if trusted:  # as a reader who executed it, or who trusts its author
        data_dir.mkdir()
        NotebookNotary(data_dir=str(data_dir)).sign(nbformat.read(path, 4))
    await server.start()
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
            page = await browser.new_page(viewport={"width": 1440, "height": 900})
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            await open_lab(page, server, "tree/hostile.ipynb")
            areas = page.locator(".jp-Notebook .jp-OutputArea-output")
            await expect(areas).to_have_count(4 * len(MARKERS), timeout=60_000)
            assert await page.locator(".jp-OutputArea-output img").count() >= len(MARKERS)
            assert await page.evaluate(FOUND_ALIVE) == {"hit": 0, "frames": 0, "links": [], "handlers": 0}
            await browser.close()
    finally:
        await server.stop()
    assert [url for url in asked if "198.51.100.7" in url or url.startswith("javascript")] == []


@pytest.mark.parametrize("number", range(len(MARKERS)))
async def test_no_marker_in_any_field_comes_alive(number: int, tmp_path: Path) -> None:
    from nbconvert.filters.markdown import markdown2html

    run, other = hostile(MARKERS[number]), Run.load(GOLDEN)
    text = run.to_markdown(tmp_path / "run.md")
    pages = {
        "repr": run._repr_mimebundle_()["text/html"],
        "html": run.to_html(tmp_path / "run.html"),
        "comparison": compare(run, other)._repr_mimebundle_()["text/html"],
        "comparison, other side": compare(other, run)._repr_mimebundle_()["text/html"],
        "desktop replay": live_replay(MARKERS[number])._repr_mimebundle_()["text/html"],
        "markdown": markdown2html(text),
        "markdown as HTML": text,
    }
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = await browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for name, html in pages.items():
            await page.set_content(html, wait_until="load")
            found = await page.evaluate(
                """() => ({hit: window.hit || 0, scripts: document.scripts.length,
                frames: document.querySelectorAll('iframe,object,embed,form').length,
                links: Array.from(document.querySelectorAll('[href]')).map(e => e.getAttribute('href'))
                  .filter(href => !href.startsWith('#')),
                handlers: Array.from(document.querySelectorAll('*')).filter(e =>
                  e.getAttributeNames().some(n => n.startsWith('on'))).length})"""
            )
            expected = 2 if name in ("repr", "html") else 0  # the slider and its data
            assert found == {"hit": 0, "scripts": expected, "frames": 0, "links": [], "handlers": 0}, name
        await browser.close()
    assert [url for url in asked if url.startswith(("http", "ftp", "javascript"))] == []


def doubling(levels: int) -> bytes:
    """A file whose requests are each twice as long as the one before."""
    contents = unpack(GOLDEN)
    length, exchanges = 64, []
    for number in range(1, levels + 1):
        change = {"base": number - 1 or None, "prefix": length, "suffix": length, "middle": ""}
        if number == 1:
            change |= {"prefix": 0, "suffix": 0, "middle": "x" * length}
        else:
            length *= 2
        exchanges.append({**contents.exchanges[0], "number": number, "request": change})
    return packed(Contents(contents.manifest, exchanges=exchanges, **_rest(contents)))


def _rest(contents: Contents) -> dict[str, Any]:
    return {name: rows for name, rows in contents.lists.items() if name != "exchanges"}


def test_doubling_requests_are_refused_before_they_are_expanded() -> None:
    data = doubling(34)
    tracemalloc.start()
    with pytest.raises(BundleRefused, match=r"expands to .* the limit is"):
        Run.load(data)
    assert tracemalloc.get_traced_memory()[1] < 32_000_000
    tracemalloc.stop()


def test_many_large_requests_are_refused_by_their_total() -> None:
    contents = unpack(GOLDEN)
    size = 60 * 1024 * 1024
    changes: list[dict[str, Any]] = [{"base": None, "prefix": 0, "suffix": 0, "middle": "x" * 1024}]
    length = 1024
    while length < size // 2:
        changes.append({"base": len(changes), "prefix": length, "suffix": length, "middle": ""})
        length *= 2
    changes += [{"base": len(changes) + n, "prefix": length, "suffix": 0, "middle": ""} for n in range(200)]
    exchanges = [{**contents.exchanges[0], "number": n, "request": change} for n, change in enumerate(changes, 1)]
    with pytest.raises(BundleRefused, match="the requests expand to more than"):
        Run.load(packed(Contents(contents.manifest, exchanges=exchanges, **_rest(contents))))


def test_a_request_that_repeats_a_screenshot_is_refused_by_its_size() -> None:
    contents = unpack(GOLDEN)
    digest = max(contents.screenshots, key=lambda name: len(contents.find(name) or b""))
    middle = f"\x01{digest}" * 100_000
    change = {"base": None, "prefix": 0, "suffix": 0, "middle": middle}
    exchanges = [{**contents.exchanges[0], "request": change}]
    made = Contents(
        contents.manifest, exchanges=exchanges, screenshots=contents.screenshots, find=contents.find, **_rest(contents)
    )
    run = Run.load(packed(made))
    with pytest.raises(BundleRefused, match="expands to more than"):
        run.contents.request(0)


def mutated(seed: int) -> bytes:
    """A shipped file with one to five mutations: bytes of the zip, values of the JSON, or both."""
    chance = random.Random(seed)
    with zipfile.ZipFile(GOLDEN) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != "checksums.sha256"}
    for _ in range(chance.randint(1, 5)):
        name = chance.choice([name for name in files if name.startswith("pictures") is (chance.random() < 0.15)])
        files[name] = _mutate_json(files[name], chance) if "json" in name else _mutate_bytes(files[name], chance)
    return zipped(files, chance)


def zipped(files: dict[str, bytes], chance: random.Random) -> bytes:
    """The files with right checksums; sometimes the zip itself is damaged."""
    import hashlib

    renamed = {}
    for name, data in files.items():
        if name.startswith("pictures/"):
            name = f"pictures/{hashlib.sha256(data).hexdigest()}{name[-4:]}"
        renamed[name] = data
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in renamed.items())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in {**renamed, "checksums.sha256": sums.encode()}.items():
            archive.writestr(name, data)
    return _mutate_bytes(out.getvalue(), chance) if chance.random() < 0.1 else out.getvalue()


def _mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    at, kind = chance.randrange(len(data)), chance.randrange(3)
    if kind == 0:
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    return data[:at] if kind == 1 else data[:at] + chance.randbytes(chance.randint(1, 40)) + data[at:]


VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, 2**63, "", "x" * 5000, "\ud800", "\x00", [], {}, [[]], [1, 2], {"a": 1}),
    *("__class__", "close", "0" * 64, "image/svg+xml", [None], ["a", "b"], {"type": "image"}, 253402300800),
    *([99999999999, -5], {"base64": "%%%"}, {"none": True, "text": ""}, "AAA", 1e-320, "2024-01-01"),
)


def _mutate_json(data: bytes, chance: random.Random) -> bytes:
    rows = [json.loads(line) for line in data.decode().splitlines()]
    if not rows:
        return data
    places = list(_places(rows))
    for _ in range(chance.randint(1, 3)):
        holder, key = chance.choice(places)
        kind = chance.randrange(4)
        try:
            if kind == 0:
                del holder[key]
            elif kind == 1:
                other, name = chance.choice(places)
                holder[key] = copy.deepcopy(other[name])
            else:
                holder[key] = chance.choice(VALUES)
        except (KeyError, IndexError):
            continue
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)


async def use(data: bytes) -> None:
    """Load the file and do everything with it that reads it; only :class:`RunError` may come out."""
    try:
        run = Run.load(data)
        _ = run._repr_mimebundle_(), run.to_markdown(), compare(run, run)._repr_mimebundle_(), run.to_inspect()
        _ = atif(run), list(step_rows(run)), conversation(run)
        _ = run.messages, run.answers, run.steps, run == run
        ForkPoint.at_step(run.contents, run.rows[-1]["step"] if run.rows else 0)
        await replay(run.contents)
        DatasetExporter().write([run], Path(os.devnull))
        _ = list(islice(Film(run, 320, 1, 1.0).frames(), 40))
    except (RunError, ConfigurationError, InvalidRequest):  # no screenshots to show; a step that was cleared
        return


async def test_mutated_files_end_in_a_run_error_or_a_run() -> None:
    for seed in (*range(SEEDS), *ONCE_FAILED):
        try:
            await use(mutated(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


SEEDS = 150
ONCE_FAILED = (6118, 8047, 66)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.cambio")
    for path in (tmp_path / "pipe.cambio", Path("/dev/zero")):
        with pytest.raises(BundleRefused, match="not a regular file"):
            Run.load(path)
    with pytest.raises(BundleRefused):
        Run.load("a\0b.cambio")


@pytest.mark.parametrize(
    "path",
    sorted([*RUNS.rglob("*.cambio"), *FIRST.glob("*.cambio")]),
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_shipped_version_one_files_load_and_are_written_to_the_byte(path: Path) -> None:
    same = packed(Run.load(path).contents) == path.read_bytes()
    assert same  # not compared in the assertion: pytest would look for the differences of megabytes for minutes
