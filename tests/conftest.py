"""Fixtures that more than one area uses. Real parts only: an engine, a server process, a browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from .live_server import LiveServer
from .messages_api.fixtures import messages_api  # noqa: F401  (a fixture)

ROOT = Path(__file__).resolve().parent.parent
ALONE = {"acceptance", "browser", "faults", "security"}
"""Directories whose tests measure delays or fill the machine; ``scripts/test`` runs the others two at a time."""
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    "chromium (the Debian package; on Ubuntu, whose chromium is a snap, Google Chrome)",
)
"""Where it is; a browser that cannot be started is named in Playwright's error."""
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


_RUN = asyncio.run


@pytest.fixture(autouse=True)
def own_asyncio_run() -> None:
    """Undo what inspect_ai does to this process: its ``asyncio.run`` never closes the loop that it makes."""
    asyncio.run = _RUN


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """With ``CI=true`` a skip is a failure: a missing engine, browser or server must not look like success."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI=true allows no skip: {report.longrepr}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Allow a second try to the tests that compare durations, and to no others; say which tests run alone."""
    for item in items:
        if item.get_closest_marker("timing") or item.path.relative_to(ROOT / "tests").parts[0] in ALONE:
            item.add_marker(pytest.mark.alone)
        if item.get_closest_marker("timing"):
            item.add_marker(pytest.mark.flaky(reruns=1))
        elif item.get_closest_marker("flaky"):
            raise pytest.UsageError(f"{item.nodeid} is marked flaky: only tests marked timing may be tried again.")


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """The engine that answers, else one of our own for the length of the test run; sets ``DOCKER_HOST``."""
    script = ROOT / "scripts" / "engine"
    before_start = subprocess.run([script, "ours"], capture_output=True, text=True).stdout
    host = subprocess.run([script, "start"], capture_output=True, text=True, check=True).stdout.strip()
    # An engine that was only slow to answer, or that another test run started, is not stopped.
    started = subprocess.run([script, "ours"], capture_output=True, text=True).stdout != before_start
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    yield host
    if before is None:
        del os.environ["DOCKER_HOST"]
    else:
        os.environ["DOCKER_HOST"] = before
    if started:
        subprocess.run([script, "stop"], check=True)


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[Callable[..., LiveServer]]:
    """``await start_server("--no-token", desktop="local", env={...})``: a real server process, stopped afterwards.

    Each has its own data directory below ``tmp_path`` unless ``data_dir`` says otherwise.
    """
    servers: list[LiveServer] = []

    async def start(*arguments: str, **options: object) -> LiveServer:
        options.setdefault("data_dir", tmp_path / f"data-{len(servers)}")
        server = LiveServer(*arguments, **options)  # type: ignore[arg-type]
        servers.append(server)
        await server.start()
        return server

    yield start  # type: ignore[misc]
    for server in servers:
        await server.stop()
