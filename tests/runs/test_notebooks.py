"""The example notebooks, recorded once and replayed where there is no network, no engine and no key."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_replays_to_identical_outputs(path: Path, tmp_path: Path) -> None:
    record(tmp_path, path)
    shutil.rmtree(tmp_path / "data")
    code, said = replay(tmp_path, path.name)
    verdicts = re.findall(r"^cell \d+: (.*)$", said, re.M)
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert verdicts == ["matches"] * len(cells), said
    assert code == 0
    assert list((tmp_path / "runs").glob("*.cambio"))


def test_a_changed_prompt_is_reported_by_its_cell(tmp_path: Path) -> None:
    name = "01-first-session.ipynb"
    record(tmp_path, ROOT / "notebooks" / name)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(
        text.replace('session.send(\\"Hello from a notebook!\\")', 'session.send(\\"Other words\\")')
    )
    code, said = replay(tmp_path, name)
    assert code == 1
    found = re.search(r"^cell (\d+): now asks something that the recording did not: 'Other words'", said, re.M)
    assert found and found[1] == "3", said
    assert f"cell {int(found[1]) + 1}: was not reached" in said
    code, said = replay(tmp_path, "missing.ipynb")
    assert code == 1 and "missing.ipynb cannot be read" in said
    for recording in (tmp_path / "runs").glob("*"):
        recording.unlink()
    code, said = replay(tmp_path, name, "-p", "model", "demo")
    assert code == 1 and "There is no recording" in said
