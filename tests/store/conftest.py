"""A store of its own for each test, and rows to put into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cambio_lab.store import SessionRow, Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "data")
    yield opened
    await opened.close()


def session_row(session_id: str = "s-1", **values: object) -> SessionRow:
    return SessionRow(
        **{"id": session_id, "name": session_id, "status": "active", "created_at": 1000.0, "config": {}, **values}  # type: ignore[arg-type]
    )
