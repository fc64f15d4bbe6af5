"""A server's id: kept through restarts and moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cambio_lab.errors import StoreUnavailable
from cambio_lab.settings import identity


def test_it_is_kept(tmp_path: Path) -> None:
    first = identity(tmp_path)
    assert len(first) == 32
    assert identity(tmp_path) == first


def test_it_moves_with_its_directory(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    first = identity(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert identity(tmp_path / "there") == first
    assert identity(tmp_path / "there") == first


@pytest.mark.parametrize("left", ["", "\n"])
def test_an_empty_id_is_none(tmp_path: Path, left: str) -> None:
    (tmp_path / "server-id").write_text(left)
    assert len(identity(tmp_path)) == 32


def test_a_disk_that_does_not_take_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        identity(tmp_path)
