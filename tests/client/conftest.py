"""Fixtures of the client's tests; those of ``tests/jupyter`` use them too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cambio_lab.client.workbench import Workbench

from ..live_server import LiveServer
from .small_server import TOKEN, SmallServer


@pytest.fixture
async def server() -> AsyncIterator[SmallServer]:
    found = SmallServer()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def lab(server: SmallServer) -> AsyncIterator[Workbench]:
    async with Workbench(server.url, TOKEN) as found:
        yield found


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """One real server with local desktops and the demo model for all of these tests: starting takes seconds."""
    found = LiveServer(data_dir=tmp_path_factory.mktemp("live"))
    await found.start()
    yield found
    await found.stop()
