"""``cambio-lab replay notebook.ipynb ...``: every session bound to its recording, every cell's outputs compared.

A notebook runs in its own kernel against a server that can reach nothing: no key, no engine, no network is needed.
Recordings lie in ``runs/<notebook>-<n>.cambio`` beside the notebook unless a session names its own.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import difflib
import glob
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from ..errors import RunError

START_SECONDS = 60.0
CELL_SECONDS = 600
SECRET = ("ANTHROPIC_", "AWS_", "GOOGLE_", "JUPYTER")
_VOLATILE = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b(Session|cambio-run|recording|model_id\W+|IPY_MODEL_)[- ]?[0-9a-f]{6,32}\b"), r"\1 <id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d\d:\d\d(:\d\d)?\b"), "<time>"),
    (re.compile(r"https?://(127\.0\.0\.1|localhost):\d+"), "<server>"),
    (re.compile(r"\b0x[0-9a-f]{6,16}\b"), "<address>"),
    (re.compile(r"\b\d[\d,]*(\.\d+)?\s?(ms|s|sec|seconds?|min|minutes?|µs)\b"), "<duration>"),
    (re.compile(r"(?<=processing_time\W{3})\d+(\.\d+)?"), "<duration>"),
    (re.compile(r"\bmsg-<id>"), "<id>"),
    (re.compile(r'href="[^"]*\.cambio"'), "<run>"),  # its folder may be a temporary one
)
_WAITED = re.compile(r".+: \d+(\.\d+)? s, \w+", re.S)
_IMAGE = re.compile(r"data:(image/(?:svg\+xml|png|jpeg|webp));base64,([A-Za-z0-9+/=]+)")
_IGNORED = frozenset({"application/vnd.jupyter.widget-view+json", "application/javascript"})
"""A widget's view only names a model in a kernel that has ended."""
_ASKS = "now asks something that the recording did not"


def replay_notebooks(paths: Sequence[Path], *, record: bool = False, output: Path | None = None) -> bool:
    """Execute notebooks, compare, report; whether every cell matches (or every recording was made).

    Notebooks in one folder share a server, each has a kernel of its own. ``output`` keeps an executed one.
    """
    import nbformat

    notebooks = {path: _read(path) for path in paths}
    good = True
    for folder in dict.fromkeys(path.parent for path in paths):
        with _server(folder, "all" if record else "none", live=record) as server:
            for path in (path for path in notebooks if path.parent == folder):
                if len(notebooks) > 1:
                    print(f"{path}:")
                executed, error = _execute(path, notebooks[path], server, record)
                if output is not None:
                    nbformat.write(executed, output)
                if not record:
                    good = _report(notebooks[path], executed, error) and good
                elif error:
                    raise RunError(f"The notebook did not run to its end: {error}")
                else:
                    nbformat.write(executed, path)
                    print(f"{path.name}: recorded")
    return good


def recorded(path: Path) -> list[Path]:
    """Return a notebook's recordings in the order of its sessions, and no other notebook's with a longer name."""
    prefix = _prefix(path)
    found = {file.stem.removeprefix(f"{prefix.name}-"): file for file in _named(prefix, "*.cambio")}
    return [found[number] for number in sorted((number for number in found if number.isdigit()), key=int)]


def _prefix(path: Path) -> Path:
    """Folder and first part of the names of a notebook's recordings."""
    return (path.parent / "runs" / path.stem).absolute()


def _named(prefix: Path, rest: str) -> list[Path]:
    return list(prefix.parent.glob(f"{glob.escape(prefix.name)}-{rest}"))  # names may have brackets


def _execute(path: Path, notebook: Any, server: Mapping[str, str], record: bool) -> tuple[Any, str | None]:
    """Return the notebook with the outputs of this run, and what stopped it, if anything."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    executed, error, prefix = copy.deepcopy(notebook), None, _prefix(path)
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    if record:  # the notebook may have fewer sessions now
        for file in recorded(path):
            file.unlink()
        for folder in _named(prefix, "experiment-*"):
            shutil.rmtree(folder)
    client = NotebookClient(executed, timeout=CELL_SECONDS, resources={"metadata": {"path": str(path.parent)}})
    try:
        client.execute(env={**_clean(os.environ), **server, "CAMBIO_LAB_RECORDINGS": str(prefix)})
    except CellExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    for cell in executed.cells:
        cell.metadata.pop("execution", None)  # when it ran: of no use to a reader, and new every time
    return executed, error


def _report(notebook: Any, executed: Any, error: str | None) -> bool:
    problems = compare(notebook, executed)
    for number, problem in enumerate(problems, 1):
        print(f"cell {number}: {problem or 'matches'}")
    same = not any(problems)
    if error and same:
        print(f"the notebook did not run to its end: {error}")
    return same and error is None


@contextlib.contextmanager
def _server(folder: Path, mode: str, *, live: bool) -> Iterator[dict[str, str]]:
    """A server for a folder's notebooks; what their kernels must know. Without ``live`` it is given no key."""
    token = secrets.token_hex(16)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="cambio-replay-") as data:
        environment = dict(os.environ) if live else _clean(os.environ)
        if not live:
            environment |= {"CAMBIO_LAB_DATA_DIR": data, "CAMBIO_LAB_DESKTOP": "local", "CAMBIO_LAB_POOL_SIZE": "0"}
        environment |= {
            "JUPYTER_TOKEN": token,
            "JUPYTER_RUNTIME_DIR": str(Path(data) / "runtime"),
            "CAMBIO_LAB_RECORD": mode,
            **{f"CAMBIO_LAB_RATE_{name}": "" for name in ("GENERAL", "CREATE", "WEBSOCKET", "REFUSED")},
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
    with httpx2.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx2.TransportError):  # it does not listen yet
                if client.get(f"{url}/health").status_code in (200, 503):
                    return  # 503: no desktops, which a replay does not need
            time.sleep(0.1)
    raise RunError(f"The server for the notebook did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without keys, and without what belongs to another server."""
    return {name: value for name, value in environment.items() if not name.startswith((*SECRET, "CAMBIO_LAB_", "JPY_"))}


def _read(path: Path) -> Any:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise RunError(f"{path.name} cannot be read: {error.strerror}") from None
    except Exception as error:  # nbformat raises whatever its parts raise
        raise RunError(f"{path.name} is not a notebook: {type(error).__name__}") from None


# Outputs, compared but for clocks, durations and identities


def compare(saved: Any, executed: Any) -> list[str]:
    """Return what is wrong with each code cell of the saved notebook; empty where it matches."""
    cells, others = ([cell for cell in made.cells if cell.cell_type == "code"] for made in (saved, executed))
    problems, stopped = list[str](), False
    for cell, other in zip(cells, others, strict=True):
        problems.append("was not reached" if stopped else _problem(cell.outputs, other.outputs))
        raised = any(output.output_type == "error" for output in other.outputs)
        stopped = stopped or (raised and "raises-exception" not in other.metadata.get("tags", ()))
    return problems


def _problem(saved: Sequence[Any], now: Sequence[Any]) -> str:
    error = next((output for output in now if output.output_type == "error"), None)
    if error is not None and not any(output.output_type == "error" for output in saved):
        said = str(error.evalue)
        return said[said.index(_ASKS) :] if _ASKS in said else f"raises {error.ename}: {said}"
    found = difference(saved, now)
    return f"differs: {found}" if found else ""


def difference(saved: Sequence[Any], now: Sequence[Any]) -> str:
    """Return the first difference between a cell's outputs in words, or nothing."""
    first, second = _shown(saved), _shown(now)
    if len(first) != len(second):
        return f"{len(second)} outputs instead of {len(first)}"
    for (kind, before), (other, after) in zip(first, second, strict=True):
        if kind != other:
            return f"a {other} output instead of a {kind} one"
        if before != after:
            lines = difflib.ndiff(before.splitlines(), after.splitlines())
            changed = (line for line in lines if line.startswith(("- ", "+ ")))
            said = ((line[2:][:160], "is gone" if line[0] == "-" else "is new") for line in changed)
            return next((f"{text!r} {where}" for text, where in said), "white space")
    return ""


def _shown(outputs: Sequence[Any]) -> list[tuple[str, str]]:
    """``(kind, normal text)`` of everything shown; pieces of one stream count as one."""
    shown: list[tuple[str, str]] = []
    for output in outputs:
        if _WAITED.fullmatch(str(output.get("data", {}).get("text/plain", ""))):
            continue  # a bar that shows only when something took long
        if output.output_type == "stream":
            before = shown.pop()[1] if shown and shown[-1][0] == output.name else ""
            shown.append((output.name, before + output.text))
        elif output.output_type == "error":
            shown.append(("error", f"{output.ename}: {output.evalue}"))
        else:
            for kind, value in sorted((kind, value) for kind, value in output.data.items() if kind not in _IGNORED):
                inline = kind.startswith("image/") and kind != "image/svg+xml"  # an image, as pages have them
                shown.append((kind, f"data:{kind};base64,{''.join(value.split())}" if inline else str(value)))
    return [(kind, normal(text)) for kind, text in shown if kind != "stderr"]


def normal(text: str) -> str:
    """``text`` without what differs from run to run; images in it by their pixels."""
    text = _IMAGE.sub(_image_name, text)
    for pattern, name in _VOLATILE:
        text = pattern.sub(name, text)
    return text


def _image_name(found: re.Match[str]) -> str:
    from PIL import Image

    if found[1] == "image/svg+xml":  # drawn from times
        return "<drawing>"
    pixels = base64.b64decode(found[2])
    with contextlib.suppress(OSError), Image.open(io.BytesIO(pixels)) as image:
        pixels = repr(image.size).encode() + image.convert("RGB").tobytes()
    return f"<image {hashlib.sha256(pixels).hexdigest()[:12]}>"
