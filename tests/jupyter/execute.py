"""Executes the example notebooks on a real server and a real desktop.

``python -m tests.jupyter.execute [--desktop docker] [NAME...]`` does it and keeps outputs and recordings in
``notebooks/`` (``cambio-lab replay --record``); the tests do it in a temporary directory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from ..live_server import LiveServer

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-4]-*.ipynb"))


async def execute(path: Path, server: LiveServer, folder: Path) -> Any:
    """The notebook with the outputs of this run. Raises when a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "JPY_", "ANTHROPIC_"))},
        "CAMBIO_LAB_URL": server.url,
        "CAMBIO_LAB_TOKEN": server.token,
        "PYTHONPATH": search,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    client = NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(folder)}})
    await client.async_execute(env=environment)
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """What belongs to this machine and moment is taken out, so that a repetition changes little."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="first characters of a notebook's name")
    parser.add_argument("--desktop", default="docker", choices=("docker", "local"))
    arguments = parser.parse_args()
    found = sorted((ROOT / "notebooks").glob("*.ipynb"))
    chosen = [str(path) for path in found if path.name.startswith(tuple(arguments.names) or "")]
    with tempfile.TemporaryDirectory(prefix="cambio-notebooks-") as data:
        environment = {**os.environ, "CAMBIO_LAB_DESKTOP": arguments.desktop, "CAMBIO_LAB_DATA_DIR": data}
        environment = {name: value for name, value in environment.items() if not name.startswith("ANTHROPIC_")}
        command = [sys.executable, "-m", "cambio_lab.cli", "replay", "--record", *chosen]
        return subprocess.run(command, env=environment, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
