"""The example notebooks, recorded once and replayed where there is no network, no engine and no key."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if "experiment" not in path.name)
"""Experiments run in the kernel itself, with desktops of their own; their runs are replayed one by one."""
KEPT = {"PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR"}


def replay(folder: Path, name: str, *options: str, offline: bool = True) -> tuple[int, str]:
    """``cambio-lab replay``, in a network of its own that has a loopback device and nothing else."""
    command = [sys.executable, "-m", "cambio_lab.cli", "replay", name, *options]
    if offline:
        alone = 'ip link set lo up 2>/dev/null || ifconfig lo up; exec "$@"'
        wrapper = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        command = [*wrapper, "sh", "-c", alone, "replay", *command]
    environment = {key: value for key, value in os.environ.items() if key in KEPT}
    environment |= {"JUPYTER_PLATFORM_DIRS": "1", "PYTHONPATH": str(ROOT)}
    if not offline:
        environment |= {"CAMBIO_LAB_DESKTOP": "local", "CAMBIO_LAB_DATA_DIR": str(folder / "data")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=250)
    return done.returncode, done.stdout + done.stderr


def record(folder: Path, source: Path) -> None:
    shutil.copy(source, folder / source.name)
    code, said = replay(folder, source.name, "--record", offline=False)
    assert code == 0, said


pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """The folder in which a notebook was recorded, once; what its server had is gone, only the recordings are left."""
    folders: dict[Path, Path] = {}

    def get(path: Path) -> Path:
        if path not in folders:
            folders[path] = tmp_path_factory.mktemp(path.stem)
            record(folders[path], path)
            shutil.rmtree(folders[path] / "data")
        return folders[path]

    return get


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_replays_to_identical_outputs(path: Path, recorded: Callable[[Path], Path]) -> None:
    code, said = replay(recorded(path), path.name)
    verdicts = re.findall(r"^cell \d+: (.*)$", said, re.M)
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert verdicts == ["matches"] * len(cells), said
    assert code == 0


def test_a_changed_prompt_is_reported_by_its_cell(recorded: Callable[[Path], Path], tmp_path: Path) -> None:
    name = NOTEBOOKS[0].name
    shutil.copytree(recorded(NOTEBOOKS[0]), tmp_path, dirs_exist_ok=True)
    text = (tmp_path / name).read_text()
    before, after = 'session.send(\\"Hello from a notebook!\\")', 'session.send(\\"Other words\\")'
    assert before in text
    (tmp_path / name).write_text(text.replace(before, after))
    code, said = replay(tmp_path, name)
    assert code == 1
    found = re.search(r"^cell (\d+): now asks something that the recording did not: 'Other words'", said, re.M)
    assert found and found[1] == "3", said
    assert "cell 4: was not reached" in said


def test_a_notebook_without_recordings_says_so(tmp_path: Path) -> None:
    path = NOTEBOOKS[0]
    shutil.copy(path, tmp_path)
    code, said = replay(tmp_path, path.name, "-p", "model", "demo")
    assert code == 1 and "There is no recording" in said
    code, said = replay(tmp_path, "missing.ipynb")
    assert code == 1 and "missing.ipynb cannot be read" in said
