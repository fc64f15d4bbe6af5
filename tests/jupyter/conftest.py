"""Fixtures of the notebook's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ..client.conftest import lab, server  # noqa: F401  (fixtures)
from ..live_server import LiveServer


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveServer]:
    """One real server with local desktops and the demo model for all of these tests: starting takes seconds."""
    found = LiveServer(data_dir=tmp_path_factory.mktemp("live"))
    await found.start()
    yield found
    await found.stop()
