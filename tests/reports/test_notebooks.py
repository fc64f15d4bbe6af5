"""The example notebooks: run live, and replayed from their recordings where there is no network, engine or key."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from cambio_lab.cli import main
from cambio_lab.reports.notebooks import recorded as recorded_files

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIVE = [path for path in NOTEBOOKS if path.name.startswith(("01", "05", "06"))]
"""One session, an experiment, a fork; the others are run live where the notebook's own parts are tested."""
KEPT = {"PATH", "HOME", "LANG", "VIRTUAL_ENV", "TMPDIR"}
AGAIN = "If outputs are meant to look different now: cambio-lab replay NOTEBOOK --output NOTEBOOK"
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


@pytest.mark.slow
def test_an_experiment_run_live_shows_what_came_of_it(recorded: Path) -> None:
    (path,) = recorded.glob("*experiment*.ipynb")
    shown = [_data(cell) for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    (bar,) = [page for page in shown if "progressbar" in page.get("text/html", "")]
    assert "4/4 done, 2 succeeded" in bar["text/html"] and "complete" in bar["text/html"]
    table = next(page["text/plain"] for page in shown if "reason" in page.get("text/plain", ""))
    assert table.count("agent") == 2 and "no such file" in table
    assert sum("image/png" in page for page in shown) == 1, "the plot"
    assert "<img" in shown[-2]["text/html"], "the run shows its screenshots"
    assert shown[-1]["text/plain"] == "'complete'"


def _data(cell: Any) -> dict[str, str]:
    return {kind: value for output in cell.outputs for kind, value in output.get("data", {}).items()}


def test_a_changed_question_is_reported_by_its_cell(recorded: Path) -> None:
    """In two notebooks that were just recorded: everything before it matches. A third was never recorded."""
    first, experiment = NOTEBOOKS[0], next(path for path in NOTEBOOKS if "experiment" in path.name)
    shutil.copy(first, recorded / "unrecorded.ipynb")
    change(recorded / first.name, "Open the guest book in the browser, read it and sign it.", "Other words")
    change(recorded / experiment.name, "Open a terminal.", "Open an editor.")
    code, said = replay(recorded, first.name, experiment.name, "unrecorded.ipynb")
    assert code == 1
    found = verdicts(said)
    panel, asked, after = found[first.name]
    assert panel.startswith("differs") and "Other words" in panel, "the record below the panel has the failed turn"
    assert asked.startswith("now asks something that the recording did not: 'Other words'")
    assert after == "was not reached"
    assert found[experiment.name][:2] == ["matches"] * 2
    changed = "now asks something that the recording did not: open terminal/demo/default/0"
    assert found[experiment.name][2].startswith(changed)
    assert "There is no recording unrecorded-1.cambio" in found["unrecorded.ipynb"][0]


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_names_with_brackets_are_found(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("a[1]-1.cambio", "a[1]-10.cambio", "a[1]-2.cambio", "a1-1.cambio", "a[1]-b-1.cambio"):
        (tmp_path / "runs" / name).touch()
    assert [path.name for path in recorded_files(tmp_path / "a[1].ipynb")] == [f"a[1]-{n}.cambio" for n in (1, 2, 10)]


def test_what_is_no_notebook_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.ipynb").write_text("{")
    for name, reason in (("missing.ipynb", "cannot be read"), ("broken.ipynb", "is not a notebook")):
        assert main(["replay", str(tmp_path / name)]) == 1
        assert f"{name} {reason}" in capsys.readouterr().err
