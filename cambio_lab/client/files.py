"""Files, programs and the clipboard of a session's desktop, and the recorded runs of a server."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import InvalidRequest
from . import calls, portal
from .display import Progress, Table

if TYPE_CHECKING:
    from ..reports import Entry, Run, Runs
    from .session import Session
    from .workbench import Workbench

CHUNK = 256 * 1024
PAGE = 200
"""Rows of one request."""
COLUMNS = ("path", "type", "size", "modified")


@calls
class Files:
    """Paths are relative to the home directory of the desktop, or absolute on it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def put(self, source: str | Path | bytes, to: str = "", *, show: bool | None = None) -> str:
        """Copy a file of this machine (a path), or bytes, to the desktop; returns its path there.

        ``to`` is the target's path, by default the file's own name. Long transfers show a progress bar.
        """
        data = source if isinstance(source, bytes) else Path(source)
        if isinstance(data, bytes) and not to:
            raise InvalidRequest("Where should the bytes go?", hint='files.put(b"...", "notes.txt")')
        target = to or (data.name if isinstance(data, Path) else "")
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        with Progress(f"Sending {target}", size, show=show) as bar:
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            options: dict[str, Any] = {"content": lambda: _chunks(data, bar), "headers": headers, "timeout": 600.0}
            await portal.call(self._session.lab.rest.request("PUT", self._url(target), **options))
        return target

    async def get(self, path: str, to: str | Path | None = None, *, show: bool | None = None) -> bytes | Path:
        """The bytes of a file of the desktop; with ``to`` they are written there, and its path is returned."""
        with Progress(f"Fetching {path}", show=show) as bar:
            target = None if to is None else Path(to)
            if target is not None and target.is_dir():
                target /= PurePosixPath(path).name
            content = await portal.call(self._fetch(path, target, bar))
            return content if target is None else target

    async def list(self, path: str = "") -> Table:
        """The files of a directory, by default the home directory."""
        folder = f"{path.rstrip('/')}/" if path else ""
        page = await portal.call(self._session.lab.rest.json("GET", self._url(folder)))
        return Table(page["files"], COLUMNS)

    def _url(self, path: str) -> str:
        return f"{self._session.path}/files/{quote(path.removeprefix('~/'))}"

    async def _fetch(self, path: str, target: Path | None, bar: Progress) -> bytes:
        """Write a file of the desktop to ``target``; return its bytes when there is none."""
        with io.BytesIO() if target is None else target.open("wb") as file:
            async with self._session.lab.rest.stream(self._url(path)) as response:
                bar.total = float(response.headers.get("content-length", 0)) or None
                async for chunk in response.aiter_bytes(CHUNK):
                    file.write(chunk)
                    bar.to(bar.value + len(chunk))
            return file.getvalue() if isinstance(file, io.BytesIO) else b""


@dataclass(frozen=True)
class Ran:
    """What a program left; ``exit_code`` is ``None`` after a time-out. ``truncated``: a stream had over 10 MiB."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool


@calls
class Programs:
    """Programs on the desktop, apart from the agent's shell and from the recorded run."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Ran:
        """Run a program as the desktop's user; ``timeout`` is in seconds."""
        body: dict[str, Any] = {"argv": list(argv), "env": dict(env or {}), "cwd": cwd, "timeout": timeout}
        body["stdin"] = base64.b64encode(stdin).decode()
        url = f"{self._session.path}/exec"
        found = await portal.call(self._session.lab.rest.json("POST", url, json=body, timeout=timeout + 60))
        out, err = base64.b64decode(found["stdout"]), base64.b64decode(found["stderr"])
        return Ran(found["exit_code"], out, err, found["truncated"])


@calls
class Clipboard:
    """The text clipboard of the desktop."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self) -> str:
        body = await portal.call(self._session.lab.rest.json("GET", f"{self._session.path}/clipboard"))
        return str(body["text"])

    async def set(self, text: str) -> None:
        await portal.call(self._session.lab.rest.json("PUT", f"{self._session.path}/clipboard", json={"text": text}))


async def _chunks(source: bytes | Path, bar: Progress) -> AsyncIterator[bytes]:
    bar.to(0.0)  # the server may have asked to try again
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
            bar.to(bar.value + len(chunk))


async def recorded(lab: Workbench, limit: int) -> Runs:
    """Return the newest ``limit`` sessions; belongs to the portal's loop."""
    from ..reports import Runs

    rows: list[dict[str, Any]] = []
    while len(rows) < limit:
        params = {"limit": min(PAGE, limit - len(rows)), "offset": len(rows)}
        page = await lab.rest.json("GET", "/sessions", params=params)
        rows += page["sessions"]
        if not page["sessions"] or len(rows) >= page["total"]:
            break
    return Runs([_entry(lab, row) for row in rows])


def _entry(lab: Workbench, row: dict[str, Any]) -> Entry:
    from ..reports import Entry, row_of

    path = f"/sessions/{row['id']}"

    async def delete() -> None:
        await portal.call(lab.rest.json("DELETE", f"{path}/run"))

    async def change(said: dict[str, Any]) -> None:
        await portal.call(lab.rest.json("PATCH", path, json=said))

    facts = {name: row.get(name) for name in ("id", "name", "model", "status", "steps", "created_at")}
    facts |= {"tags": tuple(row.get("tags") or ()), "note": row.get("note") or ""}
    cost = float((row.get("usage") or {}).get("cost_usd") or 0.0)
    return Entry(row_of(**facts, cost_usd=cost), partial(load_run, lab, f"{path}/run"), delete, change)


async def load_run(lab: Workbench, path: str) -> Run:
    """Return the run file at a path of the server, unpacked."""
    from ..reports.run import Run

    data, _ = await portal.call(lab.rest.bytes(path))
    run = await asyncio.to_thread(Run.load, data)
    run.lab = lab
    return run
