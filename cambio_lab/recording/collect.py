"""A run from what a server stored, finished or not: the session may still be going on, or its server was killed."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import SessionNotFound
from ..store import EventRow, ExchangeRow, SessionRow, StepRow, Store
from . import order, skeleton
from .contents import FORMAT, VERSION, Contents, Json, picture_media_types
from .recorder import OBSERVED, STARTED


async def collect(store: Store, session_id: str) -> Contents:
    """Everything recorded of a session. :class:`~cambio_lab.errors.SessionNotFound` when there is none."""
    row = await store.sessions.get(session_id)
    if row is None:
        raise SessionNotFound("No such session.", details={"session_id": session_id})
    rows = await store.events.records(session_id)
    steps = [_step(step) for step in await store.steps.of(session_id)]
    exchanges = [_exchange(exchange) for exchange in await store.exchanges.of(session_id)]
    messages = await store.transcript.stored(session_id)
    observations = order.observations(rows, steps)
    events = [_event(r) for r in rows if r.kind not in (OBSERVED, STARTED)]
    lists: list[list[Json]] = [events, messages, steps, observations]
    named = picture_media_types(lists)
    known, whole = _usable(exchanges)
    for made in known.values():
        for digest in skeleton.pictures(made):
            named.setdefault(digest, "image/png")
    present: dict[str, str] = {}
    for digest, media_type in named.items():
        if store.screenshots.path(digest) is not None:
            present[digest] = media_type
    environments = [json.loads(r.record or "{}") for r in rows if r.kind == STARTED]
    manifest = _manifest(row, environments, known, lists, exchanges)
    manifest["complete"] = row.status != "active" and whole and len(present) == len(named)
    return Contents(
        manifest=manifest,
        events=events,
        messages=messages,
        steps=steps,
        exchanges=[exchange for exchange in exchanges if exchange["number"] in known],
        observations=observations,
        pictures=dict(sorted(present.items())),
        find=partial(_find, store),
    )


async def pictures_of(store: Store, session_id: str) -> set[str]:
    """Digests of every picture that a session's record names."""
    return set((await collect(store, session_id)).pictures)


def _find(store: Store, digest: str) -> bytes | None:
    found = store.screenshots.read_now(digest)
    return found and found[0]


def _usable(exchanges: list[Json]) -> tuple[dict[int, bytes], bool]:
    """Skeletons of the exchanges whose base is there, and whether that is all of them."""
    made: dict[int, bytes] = {}
    for exchange in exchanges:
        base = exchange["request"]["base"]
        if base is None or base in made:
            made[exchange["number"]] = skeleton.apply(made[base] if base is not None else b"", exchange["request"])
    return made, len(made) == len(exchanges)


def _manifest(
    row: SessionRow,
    environments: list[Json],
    requests: dict[int, bytes],
    lists: list[list[Json]],
    exchanges: list[Json],
) -> Json:
    first = (
        json.loads(next(iter(requests.values())), strict=False)
        if requests and _is_json(next(iter(requests.values())))
        else {}
    )
    environment = environments[0] if environments else {}
    return {
        "format": FORMAT,
        "version": VERSION,
        "session": {
            "id": row.id,
            "name": row.name,
            "status": row.status,
            "created_at": row.created_at,
            "ended_at": row.ended_at,
            "end_reason": row.end_reason,
        },
        "environment": environment,
        "restarts": environments[1:],
        "model": first.get("model") or row.model,
        "config": _shareable(row.config),
        "desktop": {"kind": row.desktop_kind, **environment.get("desktop", {})},
        "request": {name: value for name, value in first.items() if name != "messages"},
        "usage": row.usage,
        "counts": {
            "events": len(lists[0]),
            "messages": len(lists[1]),
            "steps": len(lists[2]),
            "exchanges": len(exchanges),
            "observations": len(lists[3]),
        },
    }


def _shareable(config: Json) -> Json:
    """A session's configuration without the path of its recording on this machine."""
    return {name: Path(value).name if name == "record" and value else value for name, value in config.items()}


def _is_json(body: bytes) -> bool:
    return body.startswith(b"{")


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
