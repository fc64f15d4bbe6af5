"""The example notebook, run from top to bottom in a real kernel on local desktops, without a server or a key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "05-an-experiment.ipynb"


@pytest.fixture
def executed(tmp_path: Path) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    environment["CAMBIO_LAB_DESKTOP"] = "local"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=180, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute(env=environment)
    return notebook


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_example_notebook(executed: Any) -> None:
    shown = [_data(cell) for cell in executed.cells if cell.cell_type == "code"]
    (bar,) = [page for page in shown if "progressbar" in page.get("text/html", "")]
    assert "4/4 done, 2 succeeded" in bar["text/html"] and "complete" in bar["text/html"]
    table = next(page["text/plain"] for page in shown if "reason" in page.get("text/plain", ""))
    assert table.count("agent") == 2 and "no such file" in table
    assert sum("image/png" in page for page in shown) == 1, "the plot"
    run = shown[-2]
    assert "<img" in run["text/html"], "the run shows its pictures"
    assert shown[-1]["text/plain"] == "'complete'"


def _data(cell: Any) -> dict[str, str]:
    return {kind: value for output in cell.outputs for kind, value in output.get("data", {}).items()}
