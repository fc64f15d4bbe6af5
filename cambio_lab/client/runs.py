"""The server's recorded sessions as :class:`~cambio_lab.reports.Runs`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from ..reports.browser import Entry, Runs, row_of
from ..reports.run import Run
from .portal import portal

if TYPE_CHECKING:
    from .workbench import Workbench

PAGE = 200


async def recorded(lab: Workbench, limit: int) -> Runs:
    """Return the newest ``limit`` sessions; belongs to the portal's loop."""
    rows: list[dict[str, Any]] = []
    while len(rows) < limit:
        params = {"limit": min(PAGE, limit - len(rows)), "offset": len(rows)}
        page = await lab.rest.json("GET", "/sessions", params=params)
        rows += page["sessions"]
        if not page["sessions"] or len(rows) >= page["total"]:
            break
    return Runs([_entry(lab, row) for row in rows])


def _entry(lab: Workbench, row: dict[str, Any]) -> Entry:
    facts = {name: row.get(name) for name in ("id", "name", "model", "status", "steps", "created_at")}
    cost = float((row.get("usage") or {}).get("cost_usd") or 0.0)
    path = f"/sessions/{row['id']}/run"
    facts |= {"tags": tuple(row.get("tags") or ()), "note": row.get("note") or ""}
    change = partial(_change, lab, f"/sessions/{row['id']}")
    return Entry(row_of(**facts, cost_usd=cost), partial(load_run, lab, path), partial(_delete, lab, path), change)


async def load_run(lab: Workbench, path: str) -> Run:
    """Return the run file at a path of the server, unpacked."""
    data, _ = await portal.call(lab.rest.bytes(path))
    run = await asyncio.to_thread(Run.load, data)
    run.lab = lab
    return run


async def _change(lab: Workbench, path: str, said: dict[str, Any]) -> None:
    await portal.call(lab.rest.json("PATCH", path, body=said))


async def _delete(lab: Workbench, path: str) -> None:
    await portal.call(lab.rest.json("DELETE", path))
