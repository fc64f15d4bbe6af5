"""A run: what it consists of, whether it comes from a store or from a run file; collected from a store, and removed."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleRefused, SessionNotFound
from .placeholders import FindScreenshot, bodies, check_sizes, expand, named_in_requests

if TYPE_CHECKING:
    from ..store import EventRow, ExchangeRow, SessionRow, StepRow, Store
    from ..store.screenshots import ScreenshotFiles

Json = dict[str, Any]
STARTED, OBSERVED = "RecordingStarted", "Observed"
"""Kinds of the rows that a recorder adds to a session's events."""
FORMAT = "cambio-run"
VERSION = 1
LISTS = ("events", "messages", "steps", "exchanges", "observations")
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
LARGEST_CONVERSATION = 1024**3
"""Bytes of all screenshots in a conversation together, repetitions included."""


@dataclass(frozen=True)
class Contents:
    """A whole run. The lists hold JSON objects as they stand in the files of the same names; see docs/runs.md."""

    manifest: Json
    events: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    steps: list[Json] = field(default_factory=list)
    exchanges: list[Json] = field(default_factory=list)
    observations: list[Json] = field(default_factory=list)
    screenshots: Mapping[str, str] = field(default_factory=dict)
    """Media type by digest of every screenshot that the lists name and that is there."""
    find: FindScreenshot = lambda digest: None
    """Return the bytes of a screenshot."""

    @property
    def lists(self) -> dict[str, list[Json]]:
        """The lists by name."""
        return {name: getattr(self, name) for name in LISTS}

    def bodies(self) -> Iterator[bytes]:
        """Yield the requests with references in place of screenshots, one for each exchange."""
        check_sizes(self.exchanges)
        return bodies(self.exchanges)

    def request(self, index: int) -> bytes:
        """Return the body of exchange ``index`` (from 0), to the byte."""
        return expand(next(itertools.islice(self.bodies(), index, None)), self.find)

    def conversation(self) -> list[Json]:
        """Return the messages as the model was sent them, their screenshots inline; a missing one is a line of text.

        :class:`~cambio_lab.errors.BundleRefused` beyond :data:`LARGEST_CONVERSATION`.
        """
        encoded: dict[str, str] = {}
        size = 0

        def copy(value: Any) -> Any:
            nonlocal size
            if isinstance(value, list):
                return [copy(item) for item in value]
            if not isinstance(value, dict):
                return value
            source = value.get("source")
            if value.get("type") != "image" or not isinstance(source, dict) or source.get("type") != "cambio_picture":
                return {key: copy(item) for key, item in value.items()}
            digest = str(source.get("sha256"))
            if digest not in encoded:
                encoded[digest] = base64.b64encode(self.find(digest) or b"").decode()
            if not encoded[digest]:
                return {"type": "text", "text": "[the screenshot was removed]"}
            size += len(encoded[digest])
            if size > LARGEST_CONVERSATION:
                raise BundleRefused(f"the screenshots of the conversation exceed {LARGEST_CONVERSATION} bytes")
            data = {"type": "base64", "media_type": source.get("media_type"), "data": encoded[digest]}
            return {**value, "source": data}

        return [copy(message) for message in self.messages]


def images_of(event: Json) -> list[Json]:
    """Return the images that a message came with: ``sha256``, ``media_type`` and size of each, as far as they fit."""
    found = event.get("metadata", {}).get("images")
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return [row for row in rows if isinstance(row.get("sha256"), str) and row.get("media_type") in SUFFIXES]


def dump(value: Any) -> str:
    """Return one line of JSON; keys keep their order, which a byte-identical conversation needs."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def named_screenshots(lists: list[list[Json]]) -> dict[str, str]:
    """Return the media type by digest of every screenshot that these lists name."""
    found: dict[str, str] = {}
    waiting: list[Any] = list(lists)
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            if isinstance(value.get("sha256"), str) and value.get("media_type") in SUFFIXES:
                found[value["sha256"]] = value["media_type"]
            waiting.extend(value.values())
    return found


async def collect(store: Store, session_id: str) -> Contents:
    """Return everything recorded of a session. :class:`~cambio_lab.errors.SessionNotFound` when there is none."""
    row = await store.sessions.get(session_id)
    if row is None:
        raise SessionNotFound("No such session.", details={"session_id": session_id})
    rows = await store.events.records(session_id)
    steps = await store.steps.of(session_id)
    exchanges = await store.exchanges.of(session_id)
    messages = await store.transcript.stored(session_id)
    return await asyncio.to_thread(_assemble, store.screenshots, row, rows, steps, exchanges, messages)


def _assemble(
    stored: ScreenshotFiles,
    row: SessionRow,
    rows: Sequence[EventRow],
    step_rows: Sequence[StepRow],
    exchange_rows: Sequence[ExchangeRow],
    messages: list[Json],
) -> Contents:
    """Put the rows together; runs in a thread."""
    steps = [_step(step) for step in step_rows]
    every = [_exchange(exchange) for exchange in exchange_rows]
    exchanges: list[Json] = []
    for exchange in every:  # whose request stands alone, or the one that it builds on is there
        if exchange["request"]["base"] in (None, exchanges[-1]["number"] if exchanges else None):
            exchanges.append(exchange)
    observations = _observations(rows)
    events = [_event(r) for r in rows if r.kind not in (OBSERVED, STARTED)]
    named = named_screenshots([events, messages, steps, observations])
    for digest in named_in_requests(exchanges):
        named.setdefault(digest, "image/png")
    present = {digest: media_type for digest, media_type in sorted(named.items()) if stored.path(digest) is not None}
    environments = [json.loads(r.record or "{}") for r in rows if r.kind == STARTED]
    manifest = _manifest(row, environments, exchanges)
    manifest["counts"] = dict(zip(LISTS, map(len, (events, messages, steps, every, observations)), strict=True))
    whole = len(exchanges) == len(every) and len(present) == len(named)
    manifest["complete"] = row.status != "active" and whole

    def find(digest: str) -> bytes | None:
        found = stored.read_now(digest)
        return found and found[0]

    return Contents(manifest, events, messages, steps, exchanges, observations, present, find)


def _manifest(row: SessionRow, environments: list[Json], exchanges: Sequence[Json]) -> Json:
    body = exchanges[0]["request"]["middle"] if exchanges else ""
    request = json.loads(body, strict=False) if body.startswith("{") else {}
    environment = environments[0] if environments else {}
    session = {name: getattr(row, name) for name in ("id", "name", "status", "created_at", "ended_at", "end_reason")}
    return {
        "format": FORMAT,
        "version": VERSION,
        "session": session,
        "environment": environment,
        "restarts": environments[1:],
        "model": request.get("model") or row.model,
        # without the path of its run file on this machine
        "config": {name: Path(v).name if name == "record" and v else v for name, v in row.config.items()},
        "desktop": {"kind": row.desktop_kind, **environment.get("desktop", {})},
        "request": {name: value for name, value in request.items() if name != "messages"},
        "usage": row.usage,
    }


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


DAY = 86_400


async def prune(store: Store, *, days: float = 0.0, most: int = 0) -> int:
    """Remove runs that ended more than ``days`` ago, then the oldest until the rest takes at most ``most`` bytes.

    0 is no limit; an active or pinned run is never removed. Returns how many were removed; their space
    is given back by :func:`sweep` and ``store.database.compact``.
    """
    ended = await store.sessions.removable()
    old = [session_id for session_id, end in ended if days and end < time.time() - days * DAY]
    for session_id in old:
        await store.sessions.remove(session_id)
    rest = [session_id for session_id, _ in ended[len(old) :]]
    return len(old) + (await _shrink(store, rest, most) if most else 0)


async def sweep(store: Store, fresh: float = 0.0) -> int | None:
    """Remove screenshots that no session names any more; return the bytes that this freed.

    ``None``, and nothing is removed, while a damaged database lies beside ours: what can be saved of it names
    screenshots. While sessions run, ``fresh`` spares what they stored within that many seconds.
    """
    if store.damaged():
        return None
    return await store.screenshots.sweep(await store.screenshot_uses(), fresh)


async def _shrink(store: Store, ended: list[str], most: int) -> int:
    """Remove the first of ``ended`` until the rest fits; return how many. Deleted rows count as free at once."""
    sizes, uses = await store.screenshots.sizes(), await store.screenshot_uses()
    size = sum(sizes.get(digest, 0) for digest in uses)
    for number, session_id in enumerate(ended):
        if size + await store.database.live_bytes() <= most:
            return number
        for digest in await store.screenshots_of(session_id):
            uses[digest] -= 1
            if not uses[digest]:
                size -= sizes.get(digest, 0)
        await store.sessions.remove(session_id)
    return len(ended)
