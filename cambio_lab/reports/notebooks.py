"""``cambio-lab replay notebook.ipynb ...``: every session bound to its recording, every cell's outputs compared.

A notebook runs in its own kernel against a server that can reach nothing: no key, no engine, no network is needed.
Recordings lie in ``runs/<notebook>-<n>.cambio`` beside the notebook unless a session names its own.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, RunError
from .outputs import difference

START_SECONDS = 60.0
CELL_SECONDS = 600
SECRET = ("ANTHROPIC_", "AWS_", "GOOGLE_", "JUPYTER")


@dataclass(frozen=True)
class CellReport:
    """One code cell: ``number`` counts the notebook's code cells from 1. ``problem`` is empty when it matches."""

    number: int
    problem: str = ""


def replay_notebooks(paths: Sequence[Path], arguments: argparse.Namespace) -> bool:
    """The command: execute, compare, report; whether every cell matches (or every recording was made).

    Notebooks in one folder share a server, each has a kernel of its own.
    """
    notebooks = {path: _read(path) for path in paths}
    good = True
    for folder in dict.fromkeys(path.parent for path in paths):
        with _server(folder, "all" if arguments.record else "none", live=arguments.record) as server:
            for path in (path for path in notebooks if path.parent == folder):
                if len(notebooks) > 1:
                    print(f"{path}:")
                good = _one(path, notebooks[path], server, arguments) and good
    return good


def _one(path: Path, notebook: Any, server: Mapping[str, str], arguments: argparse.Namespace) -> bool:
    executed = inject(notebook, dict(arguments.parameter))
    prefix = recordings(path)
    if arguments.record:
        _forget(prefix)
    error = execute(executed, path.parent, {**server, "CAMBIO_LAB_RECORDINGS": str(prefix)})
    for cell in executed.cells:
        cell.metadata.pop("execution", None)  # when it ran: of no use to a reader, and new every time
    if arguments.output is not None:
        _write(executed, arguments.output)
    if arguments.record:
        if error:
            raise RunError(f"The notebook did not run to its end: {error}")
        _write(executed, path)
        experiments = len(list(prefix.parent.glob(f"{prefix.name}-experiment-*")))
        print(f"{path.name}: recorded {len(_recorded(prefix))} sessions, {experiments} experiments")
        return True
    reports = compare(notebook, executed)
    for report in reports:
        print(f"cell {report.number}: {report.problem or 'matches'}")
    good = all(not report.problem for report in reports) and error is None
    if error and all(not report.problem for report in reports):
        print(f"the notebook did not run to its end: {error}")
    if arguments.desktop:
        good = _on_desktops(prefix, arguments) and good
    return good


def recordings(path: Path) -> Path:
    """Folder and first part of the names of a notebook's recordings."""
    return (path.parent / "runs" / path.stem).absolute()


def _recorded(prefix: Path) -> list[Path]:
    """A notebook's recordings in the order of its sessions, and no other notebook's with a longer name."""
    found = {path.stem.removeprefix(f"{prefix.name}-"): path for path in prefix.parent.glob(f"{prefix.name}-*.cambio")}
    return [found[number] for number in sorted((number for number in found if number.isdigit()), key=int)]


def _forget(prefix: Path) -> None:
    """What an earlier recording left: the notebook may have fewer sessions now."""
    for path in _recorded(prefix):
        path.unlink()
    for folder in prefix.parent.glob(f"{prefix.name}-experiment-*"):
        shutil.rmtree(folder)


def inject(notebook: Any, parameters: Mapping[str, str]) -> Any:
    """A copy without outputs, and with ``parameters`` in a cell of their own after the one tagged ``parameters``.

    As papermill does: values that read as Python literals are those, others are text.
    """
    from nbformat import v4

    made = copy.deepcopy(notebook)
    for cell in made.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if not parameters:
        return made
    tagged = [i for i, cell in enumerate(made.cells) if "parameters" in cell.metadata.get("tags", ())]
    lines = [f"{_name(name)} = {_literal(value)}" for name, value in parameters.items()]
    cell = v4.new_code_cell(  # type: ignore[no-untyped-call]
        "# Parameters\n" + "\n".join(lines), metadata={"tags": ["injected-parameters"]}
    )
    made.cells.insert(tagged[0] + 1 if tagged else 0, cell)
    return made


def _name(name: str) -> str:
    if not name.isidentifier():
        raise ConfigurationError(f"{name!r} cannot be the name of a parameter.")
    return name


def _literal(value: str) -> str:
    import ast

    try:
        return repr(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return repr(value)


def execute(notebook: Any, folder: Path, environment: Mapping[str, str]) -> str | None:
    """Run every cell in place; what stopped it, or ``None``."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    client = NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}})
    try:
        client.execute(env={**_clean(os.environ), **environment})
    except CellExecutionError as error:
        return f"{error.ename}: {error.evalue}"
    return None


def compare(saved: Any, executed: Any) -> list[CellReport]:
    """A report for each code cell of the saved notebook; an injected cell has nothing to compare with."""
    cells = [cell for cell in saved.cells if cell.cell_type == "code"]
    others = [
        cell
        for cell in executed.cells
        if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", ())
    ]
    reports, stopped = [], False
    for number, (cell, other) in enumerate(zip(cells, others, strict=True), 1):
        problem = "was not reached" if stopped else _problem(cell, other)
        raised = any(output.output_type == "error" for output in other.outputs)
        stopped = stopped or (raised and "raises-exception" not in other.metadata.get("tags", ()))
        reports.append(CellReport(number, problem))
    return reports


def _problem(cell: Any, other: Any) -> str:
    for output in other.outputs:
        if output.output_type == "error" and not any(o.output_type == "error" for o in cell.outputs):
            told = str(output.evalue)
            asks = told.partition("now asks something that the recording did not")
            if asks[1]:
                return f"now asks something that the recording did not{asks[2]}"
            return f"raises {output.ename}: {told}"
    found = difference(cell.outputs, other.outputs)
    return f"differs: {found}" if found else ""


def _on_desktops(prefix: Path, arguments: argparse.Namespace) -> bool:
    """Desktop replay of each session's recording."""
    import asyncio

    from .commands import replay_on_fresh
    from .run import Run

    good = True
    for path in _recorded(prefix):
        print(path.name, end=": ")
        good = asyncio.run(replay_on_fresh(Run.load(path), path.stem, arguments)) and good
    return good


@contextlib.contextmanager
def _server(folder: Path, mode: str, *, live: bool) -> Iterator[dict[str, str]]:
    """A server for a folder's notebooks; what their kernels must know. Without ``live`` it is given no key."""
    token, port = secrets.token_hex(16), _free_port()
    with tempfile.TemporaryDirectory(prefix="cambio-replay-") as data:
        environment = dict(os.environ) if live else _clean(os.environ)
        if not live:
            environment |= {"CAMBIO_LAB_DATA_DIR": data, "CAMBIO_LAB_DESKTOP": "local", "CAMBIO_LAB_POOL_SIZE": "0"}
        environment |= {
            "JUPYTER_TOKEN": token,
            "JUPYTER_RUNTIME_DIR": str(Path(data) / "runtime"),
            "CAMBIO_LAB_RECORD": mode,
            **{f"CAMBIO_LAB_RATE_{name}": "" for name in ("GENERAL", "CREATE", "WEBSOCKET")},
        }
        log = Path(data) / "server.log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "cambio_lab.cli", "serve", f"--port={port}"]
            process = subprocess.Popen(command, cwd=folder.absolute(), env=environment, stdout=out, stderr=out)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(process, url, log)
            yield {"CAMBIO_LAB_URL": url, "CAMBIO_LAB_TOKEN": token, "CAMBIO_LAB_RECORD": mode}
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except urllib.error.HTTPError as error:
            if error.code == 503:
                return  # no desktops, which a replay does not need
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.1)
    raise RunError(f"The server for the notebook did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without keys, and without what belongs to another server."""
    return {name: value for name, value in environment.items() if not name.startswith((*SECRET, "CAMBIO_LAB_", "JPY_"))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read(path: Path) -> Any:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise RunError(f"{path.name} cannot be read: {error.strerror}") from None
    except Exception as error:  # nbformat raises whatever its parts raise
        raise RunError(f"{path.name} is not a notebook: {type(error).__name__}") from None


def _write(notebook: Any, path: Path) -> None:
    import nbformat

    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
