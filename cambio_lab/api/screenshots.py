"""Pictures: the desktop as it is now, and every recorded one under its digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MessageNotFound, SessionNotFound
from .failure import Refused, timestamp
from .listing import limits, order, page
from .messages import picture_path
from .rest import Rest

if TYPE_CHECKING:
    from ..store import StepRow

SMALLEST, LARGEST = 16, 4096
YEAR = 31_536_000


class Screenshot(Rest):
    """``/sessions/{session_id}/screenshot``"""

    async def get(self, session_id: str) -> None:
        """PNG of the settled screen; with ``?width=`` a small JPEG of this moment."""
        wanted = "width" in self.request.query_arguments
        width = self.argument("width", "")
        if wanted and not (width.isascii() and width.isdigit() and SMALLEST <= int(width[:6]) <= LARGEST):
            raise Refused(
                400, "The query parameter width must be a number of pixels.", {"width": f"{SMALLEST} to {LARGEST}"}
            )
        registry = await self.services.registry()
        session = await registry.find(session_id)
        desktop = session.desktop
        picture = await (desktop.thumbnail(int(width)) if wanted else desktop.screenshot())
        self.set_header("Content-Type", picture.media_type)
        # An unchanged screen costs a viewer who asks again nothing but the question.
        self.set_header("ETag", f'"{picture.sha256}"')
        self.set_header("Cache-Control", "private, no-cache")
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
            return
        self.finish(picture.data)


class Recorded(Rest):
    """``/sessions/{session_id}/screenshots/{sha256}``: never changes, so it may be cached for ever.

    Not limited, like other static files: a filmstrip is one request for each step.
    """

    limits = ()

    async def get(self, session_id: str, sha256: str) -> None:
        store = await self.services.store()
        if await store.sessions.get(session_id) is None:
            raise SessionNotFound(f"There is no session {session_id[:60]!r}.")
        found = await store.screenshots.read(sha256)
        if found is None:
            raise MessageNotFound("There is no such picture.")
        data, media_type = found
        self.set_header("Content-Type", media_type)
        self.set_header("Cache-Control", f"private, max-age={YEAR}, immutable")
        self.finish(data)


class Steps(Rest):
    """``/sessions/{session_id}/steps``: the agent's tool calls, oldest first."""

    async def get(self, session_id: str) -> None:
        limit, offset = limits(self, 200)
        sort = order(self, ("step",))
        store = await self.services.store()
        row = await store.sessions.get(session_id)
        if row is None:
            raise SessionNotFound(f"There is no session {session_id[:60]!r}.")
        if sort and not sort[0][1]:
            found = (await store.steps.of(session_id))[::-1]
            rows, total = [self._step(step) for step in found[offset : offset + limit]], len(found)
        else:  # steps are numbered from 1 without gaps, so an offset is a number
            rows = [self._step(step) for step in await store.steps.of(session_id, after=offset, limit=limit)]
            total = max(row.steps, offset + len(rows)) if rows else row.steps
        self.write_json({**page("steps", rows, total, limit, offset), "session_id": session_id})

    def _step(self, row: StepRow) -> dict[str, Any]:
        path = None
        if row.sha256 is not None:
            path = picture_path(self.url(), row.session_id, row.sha256, row.media_type or "image/png")
        return {
            "step": row.step,
            "sequence": row.sequence,
            "tool": row.tool,
            "toolset": row.toolset,
            "tool_use_id": row.tool_use_id,
            "arguments": row.arguments,
            "status": row.status,
            "started_at": timestamp(row.started_at),
            "ended_at": None if row.ended_at is None else timestamp(row.ended_at),
            "said": row.said,
            "cost_usd": row.cost_usd,
            "result": {
                "text": row.text,
                "image_path": path,
                "dimensions": f"{row.width}x{row.height}" if path else None,
                "timing": {f"{name}_ms": round(value, 2) for name, value in row.timing.items()},
            },
        }
