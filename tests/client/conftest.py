"""Fixtures of the client's tests; those of ``tests/jupyter`` use them too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cambio_lab.client.workbench import Workbench

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
