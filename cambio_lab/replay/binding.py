"""``record="runs/flights.cambio"``: a session bound to a file, with VCR's modes.

``once`` (the default) replays when the file is there and records otherwise, ``none`` only replays, ``all`` always
records. The file is written when the session ends.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..errors import InvalidRequest, RecordingMissing
from ..recording import run_file as bundle
from ..recording.collect import collect
from ..recording.contents import Contents
from ..store import Store
from .fork import ForkPoint

SUFFIX = ".cambio"


def place(record: str, root: Path | None = None) -> Path:
    """Where the file of a binding lies: below ``root`` (the server's working directory), never outside.

    :class:`~cambio_lab.errors.InvalidRequest` otherwise, and for any other suffix than ``.cambio``.
    """
    base = (root or Path.cwd()).resolve()
    path = (base / record).resolve()
    if path.suffix != SUFFIX:
        raise InvalidRequest("record must name a .cambio file.", details={"config.record": "must end in .cambio"})
    if not path.is_relative_to(base):
        raise InvalidRequest(
            "record lies outside the server's folder.",
            hint="Choose a path below the folder in which the server was started.",
            details={"config.record": "must lie below the server's folder"},
        )
    return path


async def to_replay(record: str | None, mode: str, root: Path | None = None) -> Contents | None:
    """The run that a session bound to ``record`` replays, or ``None`` when it is to be recorded.

    :class:`~cambio_lab.errors.RecordingMissing` in mode ``none`` when there is no file,
    :class:`~cambio_lab.errors.BundleRefused` when it cannot be believed.
    """
    if not record:
        return None
    path = await asyncio.to_thread(place, record, root)
    if mode == "all":
        return None
    if not await asyncio.to_thread(path.exists):
        if mode == "none":
            raise RecordingMissing(
                f"There is no recording {path.name}.", hint="Run once with record_mode `once` or `all` to make it."
            )
        return None
    return await asyncio.to_thread(bundle.unpack, path)


async def keep(store: Store, session_id: str, record: str, root: Path | None = None) -> Path:
    """Write a session's run to the file that it is bound to."""
    path = await asyncio.to_thread(place, record, root)
    contents = await collect(store, session_id)
    await asyncio.to_thread(bundle.save, contents, path)
    return path


async def fork_point(store: Store, run: str, step: int, root: Path | None = None) -> ForkPoint:
    """The point after ``step`` of a run: a session's id in this store, or a ``.cambio`` file below ``root``."""
    if run.endswith(SUFFIX):
        path = await asyncio.to_thread(place, run, root)
        contents = await asyncio.to_thread(bundle.unpack, path)
    else:
        contents = await collect(store, run)
    return await asyncio.to_thread(ForkPoint.after, contents, step)
