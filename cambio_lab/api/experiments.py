"""Experiments of this user, which run in kernels and scripts: their walls, their run files; and run files exported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..errors import MessageNotFound, RunError
from ..recording import walls
from .history import exported
from .rest import Rest

Found = TypeVar("Found")
MAX_RUN = 256 * 1024**2
"""Bytes of a run file that the server exports for a viewer; larger ones by the command line."""


class Experiments(Rest):
    """``/cambio/experiments``"""

    async def get(self) -> None:
        self.write_json({"experiments": await asyncio.to_thread(walls.listed)})


class OneExperiment(Rest):
    """``/cambio/experiments/{id}``"""

    methods = ("GET", "HEAD", "PATCH")

    async def get(self, identity: str) -> None:
        self.write_json(await found(walls.load, identity))

    async def patch(self, identity: str) -> None:
        """Change tags or note of a cell."""
        await self.services.registry()
        from . import schemas  # loaded by the start hook, off the loop

        said = self.parse(schemas.CellChange)
        wall = await found(walls.load, identity)
        if all(cell["id"] != said.cell for cell in wall["cells"]):
            raise MessageNotFound("The experiment has no such cell.")
        directory = Path(wall["directory"])
        self.write_json(await asyncio.to_thread(walls.annotate, directory, said.cell, said.tags, said.note))


class ExperimentRun(Rest):
    """``/cambio/experiments/{id}/runs/{run}``: the run file of a cell."""

    async def get(self, identity: str, run: str) -> None:
        path = await found(walls.run_file, identity, run)
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except OSError:
            raise MessageNotFound("The run file is gone.") from None
        self.set_header("Content-Type", "application/zip")
        self.finish(data)


class Export(Rest):
    """``/cambio/export``: a run file, sent, in another format."""

    methods = ("PUT",)
    max_body = MAX_RUN
    body_seconds = 120.0

    async def put(self) -> None:
        await self.services.registry()
        from ..recording.run_file import unpack

        file = self.body
        _, data = await exported(self.services, lambda: unpack(file), self.argument("format", "cambio"))
        self.set_header("Content-Type", "application/octet-stream")
        self.finish(data)


async def found(look: Callable[..., Found], *values: str) -> Found:
    """Return what ``look`` finds, in a thread; what is not there is 404."""
    try:
        return await asyncio.to_thread(look, *values)
    except RunError as error:
        raise MessageNotFound(error.message) from None
