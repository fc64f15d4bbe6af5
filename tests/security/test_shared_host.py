"""Other users of the machine: what they can place where a worker keeps its results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cambio_lab.errors import ConfigurationError
from cambio_lab.experiments.workplace import private_directory

NAME = "cambio-lab-workers-test"


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_directory_is_private_and_used_again() -> None:
    path = private_directory(NAME)
    assert path.stat().st_mode & 0o777 == 0o700
    assert private_directory(NAME) == path


def _open_to_all(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def _open_to_the_group(path: Path) -> None:
    path.mkdir()
    path.chmod(0o750)


def _link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def _dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def _of_another_user(path: Path) -> None:
    path.mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(path, 12345, 12345)
    else:
        path.chmod(0o707)


@pytest.mark.parametrize(
    "plant", [_open_to_all, _open_to_the_group, _link, _dangling_link, _of_another_user, Path.touch, os.mkfifo]
)
def test_what_another_user_placed_is_refused(shared: Path, plant: Callable[[Path], None]) -> None:
    plant(shared / NAME)
    with pytest.raises(ConfigurationError, match="not a private directory") as refused:
        private_directory(NAME)
    assert "TMPDIR" in refused.value.hint
