"""A session's run as the bytes of a bundle, for the server's API."""

from __future__ import annotations

import asyncio
import io

from ..store import Store
from .collect import collect
from .run_file import pack


async def bundle_of(store: Store, session_id: str) -> bytes:
    """The bundle of a session, finished or not. :class:`~cambio_lab.errors.SessionNotFound` when there is none."""
    contents = await collect(store, session_id)

    def packed() -> bytes:
        out = io.BytesIO()
        pack(contents, out)
        return out.getvalue()

    return await asyncio.to_thread(packed)
