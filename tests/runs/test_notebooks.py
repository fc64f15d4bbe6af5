"""The example notebooks: run live, and replayed from their recordings where there is no network, engine or key."""

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
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIVE = [path for path in NOTEBOOKS if path.name.startswith(("01", "05", "06"))]
"""One session, an experiment, a fork; the others are run live where the notebook's own parts are tested."""
KEPT = {"PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR"}
AGAIN = "If they are meant to look different now: cambio-lab replay --record notebooks/*.ipynb"
pytestmark = pytest.mark.timeout(600)


def replay(folder: Path, *arguments: str, offline: bool = True) -> tuple[int, str]:
    """``cambio-lab replay``, in a network of its own that has a loopback device and nothing else."""
    command = [sys.executable, "-m", "cambio_lab.cli", "replay", *arguments]
    if offline:
        alone = 'ip link set lo up 2>/dev/null || ifconfig lo up; exec "$@"'
        wrapper = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        command = [*wrapper, "sh", "-c", alone, "replay", *command]
    environment = {key: value for key, value in os.environ.items() if key in KEPT}
    environment |= {"JUPYTER_PLATFORM_DIRS": "1", "PYTHONPATH": str(ROOT)}
    if not offline:
        environment |= {"CAMBIO_LAB_DESKTOP": "local", "CAMBIO_LAB_DATA_DIR": str(folder / "data")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    return done.returncode, done.stdout + done.stderr


def verdicts(said: str) -> dict[str, list[str]]:
    """What was said of each notebook's cells, by the notebook's name."""
    parts = re.split(r"^(\S+\.ipynb):$", said, flags=re.M)[1:]
    return {name: re.findall(r"^cell \d+: (.*)$", text, re.M) for name, text in zip(*[iter(parts)] * 2, strict=True)}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which notebooks were run live; what their server had is gone, only the recordings are left."""
    folder = tmp_path_factory.mktemp("recorded")
    for path in LIVE:
        shutil.copy(path, folder)
    code, said = replay(folder, *(path.name for path in LIVE), "--record", offline=False)
    assert code == 0, said
    shutil.rmtree(folder / "data")
    return folder


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """What is said of the notebooks as they are shipped, with their recordings."""
    folder = tmp_path_factory.mktemp("shipped") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return replay(folder, *(path.name for path in NOTEBOOKS))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_replays_to_identical_outputs(path: Path, replayed: tuple[int, str]) -> None:
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert verdicts(replayed[1])[path.name] == ["matches"] * len(cells), f"{replayed[1]}\n{AGAIN}"


def test_the_exit_status_says_so_too(replayed: tuple[int, str]) -> None:
    assert replayed[0] == 0, replayed[1]


def test_a_changed_question_is_reported_by_its_cell(recorded: Path) -> None:
    """In two notebooks that were just recorded: everything before it matches."""
    first, experiment = NOTEBOOKS[0], next(path for path in NOTEBOOKS if "experiment" in path.name)
    change(recorded / first.name, 'session.send(\\"Hello from a notebook!\\")', 'session.send(\\"Other words\\")')
    change(recorded / experiment.name, "Open a terminal.", "Open an editor.")
    code, said = replay(recorded, first.name, experiment.name)
    assert code == 1
    of_first, of_experiment = verdicts(said)[first.name], verdicts(said)[experiment.name]
    assert of_first[:2] == ["matches"] * 2 and set(of_first[3:]) == {"was not reached"}
    assert of_first[2].startswith("now asks something that the recording did not: 'Other words'")
    assert of_experiment[:2] == ["matches"] * 2
    assert of_experiment[2].startswith("now asks something that the recording did not: open terminal/demo/default/0")


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_a_notebook_without_recordings_says_so(tmp_path: Path) -> None:
    path = NOTEBOOKS[0]
    shutil.copy(path, tmp_path)
    code, said = replay(tmp_path, path.name, "-p", "model", "demo")
    assert code == 1 and "There is no recording" in said
    code, said = replay(tmp_path, "missing.ipynb")
    assert code == 1 and "missing.ipynb cannot be read" in said
