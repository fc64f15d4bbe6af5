"""The run of a session as its server stored it: finished, still going on, or cut off when the server was killed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import SessionNotFound
from ..store import EventRow, ExchangeRow, SessionRow, StepRow, Store
from . import FORMAT, LISTS, VERSION, Contents, Json, named_in_requests, named_screenshots
from .recorder import OBSERVED, STARTED


async def collect(store: Store, session_id: str) -> Contents:
    """Return everything recorded of a session. :class:`~cambio_lab.errors.SessionNotFound` when there is none."""
    row = await store.sessions.get(session_id)
    if row is None:
        raise SessionNotFound("No such session.", details={"session_id": session_id})
    events = await store.events.records(session_id)
    steps = await store.steps.of(session_id)
    exchanges = await store.exchanges.of(session_id)
    messages = await store.transcript.stored(session_id)
    assemble = partial(_assemble, row, events, steps, exchanges, messages, store.screenshots.read_now)
    return await asyncio.to_thread(assemble, store.screenshots.path)


def _assemble(
    row: SessionRow,
    rows: Sequence[EventRow],
    step_rows: Sequence[StepRow],
    exchange_rows: Sequence[ExchangeRow],
    messages: list[Json],
    read: Callable[[str], tuple[bytes, str] | None],
    path: Callable[[str], Path | None],
) -> Contents:
    """Put the rows together; runs in a thread."""
    steps = [_step(step) for step in step_rows]
    every = [_exchange(exchange) for exchange in exchange_rows]
    exchanges = list(_usable(every))
    observations = _observations(rows)
    events = [_event(r) for r in rows if r.kind not in (OBSERVED, STARTED)]
    lists: list[list[Json]] = [events, messages, steps, observations]
    named = named_screenshots(lists)
    for digest in named_in_requests(exchanges):
        named.setdefault(digest, "image/png")
    present = {digest: media_type for digest, media_type in sorted(named.items()) if path(digest) is not None}
    environments = [json.loads(r.record or "{}") for r in rows if r.kind == STARTED]
    manifest = _manifest(row, environments, _first_request(exchanges))
    sizes = map(len, (events, messages, steps, every, observations))
    manifest["counts"] = dict(zip(LISTS, sizes, strict=True))
    whole = len(exchanges) == len(every) and len(present) == len(named)
    manifest["complete"] = row.status != "active" and whole

    def find(digest: str) -> bytes | None:
        found = read(digest)
        return found and found[0]

    return Contents(manifest, events, messages, steps, exchanges, observations, present, find)


def _usable(exchanges: Sequence[Json]) -> Iterator[Json]:
    """Yield the exchanges whose request can be rebuilt: it stands alone, or the one that it builds on is there."""
    previous: int | None = None
    for exchange in exchanges:
        base = exchange["request"]["base"]
        if base is None or base == previous:
            previous = exchange["number"]
            yield exchange


def _first_request(exchanges: Sequence[Json]) -> Json:
    body = exchanges[0]["request"]["middle"] if exchanges else ""
    return dict(json.loads(body, strict=False)) if body.startswith("{") else {}


def _manifest(row: SessionRow, environments: list[Json], request: Json) -> Json:
    environment = environments[0] if environments else {}
    session = {name: getattr(row, name) for name in ("id", "name", "status", "created_at", "ended_at", "end_reason")}
    return {
        "format": FORMAT,
        "version": VERSION,
        "session": session,
        "environment": environment,
        "restarts": environments[1:],
        "model": request.get("model") or row.model,
        "config": _shareable(row.config),
        "desktop": {"kind": row.desktop_kind, **environment.get("desktop", {})},
        "request": {name: value for name, value in request.items() if name != "messages"},
        "usage": row.usage,
    }


def _shareable(config: Json) -> Json:
    """Return a session's configuration without the path of its run file on this machine."""
    return {name: Path(value).name if name == "record" and value else value for name, value in config.items()}


def _observations(rows: Sequence[EventRow]) -> list[Json]:
    """Return the calls to the desktop as they began, each with the number of its step or ``None``.

    Calls are stored as they end, before the event that ends their step; ``number`` counts them as they begin, from
    each start of the session.
    """
    placed: list[tuple[int, int, Json]] = []
    pending: list[Json] = []
    start = 0
    for row in rows:
        if row.kind == STARTED:
            start += 1
        elif row.kind in ("ToolFinished", "Unseen"):  # a look after a step is part of it
            finished = json.loads(row.record or "{}")
            if finished.get("actor") != "human":
                for call in pending:
                    call["step"] = finished.get("step")
                pending = []
        elif row.kind == OBSERVED:
            call = {"step": None, **json.loads(row.record or "{}")}
            placed.append((start, call.pop("number", 0), call))
            if call.get("by") is None and call["method"] != "release_all":
                pending.append(call)
    calls = [call for _, _, call in sorted(placed, key=lambda item: item[:2])]
    latest = 0.0
    for call in calls:  # where the wall clock was set back, times stand still
        latest = call["at"] = max(latest, call["at"])
    return calls


def _event(row: EventRow) -> Json:
    record = json.loads(row.record or "{}")
    if isinstance(record.get("image"), str):
        record["image"] = {"sha256": record["image"], "media_type": record.get("media_type", "image/png")}
    if "kind" in record:  # a failed turn says what kind of error it was
        record["error_kind"] = record.pop("kind")
    return {"time": row.time, "sequence": row.sequence, "kind": row.kind, **record}


def _step(row: StepRow) -> Json:
    values: dict[str, Any] = asdict(row)
    del values["session_id"]
    if values["sha256"] is None:
        del values["sha256"], values["media_type"]
    return values


def _exchange(row: ExchangeRow) -> Json:
    values: dict[str, Any] = asdict(row)
    del values["session_id"]
    values["request"] = json.loads(row.request)
    try:
        values["response"] = row.response.decode()
    except UnicodeDecodeError:  # compressed, or cut inside a character
        values["response"] = {"base64": base64.b64encode(row.response).decode()}
    return values
