"""A registry on stand-ins: real store, real state machine, real journal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .parts import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Started; stopped at the end of the test."""
    made = Bench(tmp_path / "data")
    await made.start()
    yield made
    await made.stop()
