"""``cambio-lab serve`` in which a session called ``flood N`` emits N events once a client listens to it."""

from __future__ import annotations

import asyncio
import sys

from cambio_lab.cli import _parser, jupyter_options
from cambio_lab.events import StatusChanged
from cambio_lab.server.extension import CambioLab, serve

opened = CambioLab._open


async def open_and_flood(app: CambioLab) -> None:
    """The real start hook, and one more task."""
    await opened(app)
    app._tasks += (asyncio.create_task(flood(app), name="flood"),)


async def flood(app: CambioLab) -> None:
    registry = await app.services.registry()
    done: set[str] = set()
    while True:
        await asyncio.sleep(0.05)
        for session in registry.sessions:
            if session.name.startswith("flood ") and session.id not in done and len(session.journal.broadcast) >= 2:
                done.add(session.id)
                for number in range(int(session.name.split()[1])):
                    event = StatusChanged("thinking", f"event {number}", {"padding": "x" * 100})
                    await session.journal.post(session.stamped(event))


if __name__ == "__main__":
    parsed, rest = _parser().parse_known_args(sys.argv[1:])
    parsed.rest = rest
    CambioLab._open = open_and_flood  # type: ignore[method-assign, assignment]
    serve(jupyter_options(parsed))
