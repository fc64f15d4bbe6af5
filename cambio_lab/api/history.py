"""What a session said, did and saw: messages, events, steps, screenshots, the recorded run; runs of experiments."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import errors
from ..events import timestamp
from ..recording import walls
from .messages import screenshot_path
from .rest import FARTHEST, Rest, list_body, viewer_page

if TYPE_CHECKING:
    from ..recording import Contents
    from ..store import MessageRow, SessionRow, StepRow, Store
    from .base import Services

Found = TypeVar("Found")
MAX_RUN = 256 * 1024**2
"""Bytes of a run file that the server exports for a viewer; larger ones by the command line."""
ROLES = ("user", "assistant")
SHOWN = (*("step", "sequence", "tool", "toolset", "tool_use_id", "arguments", "status", "actor", "said", "cost_usd"),)
"""Of a step, as it is stored."""
YEAR = 31_536_000
FRESH_SECONDS = 3600.0
"""Screenshots that were stored within this time are not swept: a session may be about to name them."""


async def stored(store: Store, session_id: str) -> SessionRow:
    """Return the row of a session, live or ended. Raises :class:`SessionNotFound`."""
    row = await store.sessions.get(session_id)
    if row is None:
        raise errors.SessionNotFound(f"There is no session {session_id[:60]!r}.")
    return row


class History(Rest):
    """``/sessions/{session_id}/history``"""

    methods = ("GET", "HEAD", "DELETE")

    async def get(self, session_id: str) -> None:
        """One page, in the order of the conversation unless ``sort=timestamp:desc``."""
        store = await self.services.store()
        from ..store import MessageQuery  # loaded by the start hook, off the loop

        limit, offset = self.page(100)
        sort = self.sorting(("created_at", "timestamp"))
        query = MessageQuery(
            role=self.one_of("role", ROLES),  # type: ignore[arg-type]
            created_after=self.time_after("created_after"),
            created_before=self.time_argument("created_before"),
            newest_first=bool(sort) and not sort[0][1],
            limit=limit,
            offset=offset,
        )
        found = await store.messages.page(session_id, query)
        if not found.total:
            await stored(store, session_id)
        rows = [message(row) for row in found.rows]
        body = list_body("messages", rows, found.total, limit, offset)
        self.write_json({**body, "session_id": session_id})

    async def delete(self, session_id: str) -> None:
        """Forget the conversation, the agent's memory of it included."""
        session = await self.find(session_id)
        cleared = await session.clear_history()
        self.write_json({"message": "Chat history cleared", "session_id": session_id, "cleared_messages": cleared})


class Events(Rest):
    """``/sessions/{session_id}/events``: the whole story by sequence, as ``/ws/{session_id}`` told it."""

    async def get(self, session_id: str) -> None:
        limit, position = self.page(100)[0], self.whole_number("after", 0, least=0)
        store = await self.services.store()
        row = await stored(store, session_id)
        found = await store.events.after(session_id, min(position, FARTHEST), stream=False, limit=limit)
        last = found[-1][0] if found else position
        told = ",".join(f'{body[:-1]},"sequence":{sequence}}}' for sequence, body in found)
        rest = {"session_id": session_id, "after": position, "limit": limit, "last_sequence": row.last_sequence}
        rest["has_next"] = bool(found) and last < row.last_sequence
        self.set_header("Content-Type", "application/json")
        self.finish(f'{{"events":[{told}],{json.dumps(rest)[1:]}')


def message(row: MessageRow) -> dict[str, Any]:
    """A stored message as documented."""
    shown = {name: getattr(row, name) for name in ("id", "role", "content", "sequence", "metadata")}
    return {**shown, "timestamp": timestamp(row.created_at)}


class Recorded(Rest):
    """``/sessions/{session_id}/screenshots/{sha256}``: never changes, so it may be cached for ever.

    Not limited, like other static files: a filmstrip is one request for each step.
    """

    limits = ()

    async def get(self, session_id: str, sha256: str) -> None:
        store = await self.services.store()
        await stored(store, session_id)
        found = await store.screenshots.read(sha256)
        if found is None:
            raise errors.MessageNotFound("There is no such screenshot.")
        data, media_type = found
        self.set_header("Content-Type", media_type)
        self.set_header("Cache-Control", f"private, max-age={YEAR}, immutable")
        self.finish(data)


class Steps(Rest):
    """``/sessions/{session_id}/steps``: the agent's tool calls, oldest first."""

    async def get(self, session_id: str) -> None:
        limit, offset = self.page(200)
        sort = self.sorting(("step",))
        store = await self.services.store()
        row = await stored(store, session_id)
        if sort and not sort[0][1]:
            found = (await store.steps.of(session_id))[::-1]
            rows, total = [self._step(step) for step in found[offset : offset + limit]], len(found)
        else:  # steps are numbered from 1 without gaps, so an offset is a number
            rows = [self._step(step) for step in await store.steps.of(session_id, after=offset, limit=limit)]
            total = max(row.steps, offset + len(rows)) if rows else row.steps
        self.write_json({**list_body("steps", rows, total, limit, offset), "session_id": session_id})

    def _step(self, row: StepRow) -> dict[str, Any]:
        path = None
        if row.sha256 is not None:
            path = screenshot_path(self.url(), row.session_id, row.sha256, row.media_type or "image/png")
        return {
            **{name: getattr(row, name) for name in SHOWN},
            "started_at": timestamp(row.started_at),
            "ended_at": None if row.ended_at is None else timestamp(row.ended_at),
            "result": {
                "text": row.text,
                "image_path": path,
                "dimensions": f"{row.width}x{row.height}" if path else None,
                "timing": {f"{name}_ms": round(value, 2) for name, value in row.timing.items()},
            },
        }


class Run(Rest):
    """``/sessions/{session_id}/run``: the recorded run as a ``.cambio`` file, or in another format."""

    methods = ("GET", "HEAD", "DELETE")

    async def get(self, session_id: str) -> None:
        from ..recording import collect
        from ..recording.run_file import packed

        name = self.argument("format", "")
        contents = await collect(await self.services.store(), session_id)
        if name:
            ending, data = await exported(self.services, lambda: contents, name)
        else:
            ending, data = ".cambio", await asyncio.to_thread(packed, contents)
        self.set_header("Content-Type", "application/octet-stream" if name else "application/zip")
        self.set_header("Content-Disposition", f'attachment; filename="{session_id}{ending}"')
        self.finish(data)

    async def delete(self, session_id: str) -> None:
        """Delete the record of a session that has ended, for good."""
        from ..recording import sweep

        store = await self.services.store()
        if (await stored(store, session_id)).status == "active":
            raise errors.SessionConflict("The session is active.", hint="End it first.")
        await store.sessions.remove(session_id)
        await sweep(store, FRESH_SECONDS)
        self.write_json({"message": "Run deleted", "session_id": session_id})


async def exported(services: Services, contents: Callable[[], Contents], name: str) -> tuple[str, bytes]:
    """Return a run in the format ``name``, with the file's ending; what cannot be made is 422."""
    try:
        return await asyncio.to_thread(lambda: services.export(contents(), name))
    except (errors.BundleRefused, errors.ConfigurationError) as error:  # no such format, or its package is not there
        raise errors.InvalidRequest(error.message, hint=error.hint, details={"format": "cannot be made"}) from None


class RunPage(Rest):
    """``/cambio/run/{session_id}``: the page with the viewer of a session's run."""

    async def get(self, session_id: str) -> None:
        await stored(await self.services.store(), session_id)
        viewer_page(self, session_id, run=True)


class Formats(Rest):
    """``/cambio/formats``: what a run can be exported as."""

    async def get(self) -> None:
        await self.services.registry()
        self.write_json({"formats": await asyncio.to_thread(self.services.formats)})


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
            raise errors.MessageNotFound("The experiment has no such cell.")
        directory = Path(wall["directory"])
        self.write_json(await asyncio.to_thread(walls.annotate, directory, said.cell, said.tags, said.note))


class ExperimentRun(Rest):
    """``/cambio/experiments/{id}/runs/{run}``: the run file of a cell."""

    async def get(self, identity: str, run: str) -> None:
        path = await found(walls.run_file, identity, run)
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except OSError:
            raise errors.MessageNotFound("The run file is gone.") from None
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
    except errors.RunError as error:
        raise errors.MessageNotFound(error.message) from None
