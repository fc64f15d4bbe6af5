"""Stamp, store, publish: the one way by which anything a session does becomes visible; and how much may be stored.

Events wait in a queue; a task takes all that wait, numbers them, writes them and the rows that belong to them in one
transaction, and only then shows them to readers. When the disk does not take them they stay queued, in order and
without a gap, until it does: the numbers are given when the write succeeds.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from cambio_lab.agent.gate import LimitReached
from cambio_lab.errors import SessionEnded, StoreError
from cambio_lab.events import Event, HistoryAppended, TextDelta, ThinkingDelta, ToolAnnounced
from cambio_lab.recording import prune, sweep
from cambio_lab.settings import Settings
from cambio_lab.store import EventRow, Operation, SessionRow, Store

from . import Broadcast, SessionView

if TYPE_CHECKING:
    from .session import Session

logger = logging.getLogger(__name__)

STREAM_ONLY = (TextDelta, ThinkingDelta, ToolAnnounced)
"""What only readers with ``?stream=true`` see; the record has the whole text elsewhere."""
MAX_WAITING = 512  # entries before :meth:`Journal.post` waits too
FIRST_RETRY, LONGEST_RETRY = 0.25, 2.0
MB = 1_000_000
WARN_AT = 0.8  # of a session's limit, and of the limit of all records
PRUNE_TO = 0.9  # oldest runs are removed until the records take at most this share of their limit
FRESH_SECONDS = 60.0
"""Screenshots that were stored this recently are spared: a running session may be about to name them."""


@dataclass(slots=True)
class _Entry:
    rows: Sequence[EventRow]
    operations: tuple[Operation[Any], ...]
    stored: asyncio.Future[list[Any]]
    refusable: bool


class Journal:
    """One session's events, in order; numbers go on from those in the session's ``row``."""

    def __init__(self, row: SessionRow, store: Store) -> None:
        fetch = partial(store.events.after, row.id)
        self.broadcast = Broadcast(fetch, row.last_sequence, row.last_stream_sequence)
        self.failure: StoreError | None = None
        """Why nothing can be stored at the moment."""
        self._session_id = row.id
        self._store = store
        self._queue: deque[_Entry] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def emit(
        self, *rows: EventRow, operations: Sequence[Operation[Any]] = (), refusable: bool = False
    ) -> list[Any]:
        """Store events and ``operations`` together and publish the events; returns the operations' results.

        Waits for as long as the disk takes nothing, unless ``refusable``: then :class:`StoreUnavailable` is raised
        and nothing is stored. Cancelling the caller does not take the events back.
        """
        return await asyncio.shield(self._join(rows, operations, refusable))

    async def post(self, row: EventRow, operations: Sequence[Operation[Any]] = ()) -> None:
        """Like :meth:`emit`, without waiting for the disk, unless very much waits for it already."""
        stored = self._join((row,), operations, False)
        if len(self._queue) > MAX_WAITING:
            await asyncio.shield(stored)

    async def drain(self, patience: float) -> bool:
        """Wait until everything is stored; false when that took longer than ``patience`` seconds."""
        writer = self._writer
        if writer is not None:
            await asyncio.wait({writer}, timeout=patience)
        return not self._queue

    async def finish(self) -> None:
        """Go on trying until everything is stored, then close."""
        try:
            while not await self.drain(60.0):
                logger.warning("session's end not on disk yet: session=%s", self._session_id)
        finally:
            await self.aclose()

    async def aclose(self, patience: float = 0.0) -> bool:
        """Store what waits, or drop it after ``patience`` seconds (false); readers end."""
        done = await self.drain(patience)
        self._closed = True
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait({self._writer})
        for entry in self._queue:
            entry.stored.cancel()
        self._queue.clear()
        self.broadcast.close()
        return done

    def _join(
        self, rows: Sequence[EventRow], operations: Sequence[Operation[Any]], refusable: bool
    ) -> asyncio.Future[list[Any]]:
        stored: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        stored.add_done_callback(_forget)
        if self._closed:
            stored.set_exception(SessionEnded("The session is over.", hint="Start a new one."))
            return stored
        if refusable and self.failure is not None and self._queue:
            stored.set_exception(self.failure)
            return stored
        self._queue.append(_Entry(rows, tuple(operations), stored, refusable))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name=f"journal {self._session_id}")
            self._writer.add_done_callback(self._rest)
        return stored

    def _rest(self, task: asyncio.Task[None]) -> None:
        if self._writer is task:
            self._writer = None
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the journal of %s stopped", self._session_id, exc_info=error)

    async def _write(self) -> None:
        """Write what waits until nothing does."""
        delay, largest = FIRST_RETRY, MAX_WAITING
        while self._queue:
            entries = list(islice(self._queue, largest))
            numbered = self._number(entries)
            operations: list[Operation[Any]] = []
            for entry, rows in zip(entries, numbered, strict=True):  # an operation finds its own events' numbers
                operations += [self._store.events.appending(rows), *entry.operations]
            try:
                results = await self._store.write(*operations)
            except StoreError as error:
                self._refuse(error)
                if self._queue:
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, LONGEST_RETRY)
                continue
            except Exception as error:
                if len(entries) > 1:
                    largest = 1  # find the one that cannot be written
                else:
                    self._queue.popleft()
                    _fail(entries[0], error)
                continue
            self.failure, delay, largest = None, FIRST_RETRY, MAX_WAITING
            self._done(entries, numbered, results)

    def _number(self, entries: Sequence[_Entry]) -> list[list[EventRow]]:
        """Return each entry's rows with the numbers that follow those already given."""
        sequence, stream_sequence = self.broadcast.sequence, self.broadcast.stream_sequence
        numbered: list[list[EventRow]] = []
        for entry in entries:
            rows = []
            for row in entry.rows:
                if row.body is not None:
                    stream_sequence += 1
                    number = None
                    if row.record is not None:  # seen by all
                        sequence = number = sequence + 1
                    row = replace(row, sequence=number, stream_sequence=stream_sequence)
                rows.append(row)
            numbered.append(rows)
        return numbered

    def _done(self, entries: Sequence[_Entry], numbered: Sequence[list[EventRow]], results: list[Any]) -> None:
        self.broadcast.publish(row for rows in numbered for row in rows)
        rest = iter(results)
        for entry in entries:
            self._queue.popleft()
            _of_events, *found = islice(rest, 1 + len(entry.operations))
            if not entry.stored.done():
                entry.stored.set_result(found)

    def _refuse(self, error: StoreError) -> None:
        """Drop what may be refused; the rest has happened and must be told some day."""
        self.failure = error
        for entry in self._queue:
            if entry.refusable:
                _fail(entry, error)
        self._queue = deque(entry for entry in self._queue if not entry.refusable)
        if not self._queue:
            self.failure = None  # nothing waits: the next one finds out for itself


def event_row(event: Event, view: SessionView, body: dict[str, Any] | None) -> EventRow:
    """Return an event as it is stored, before it has numbers. ``body`` is what sockets are sent.

    Its record has screenshots by digest, and leaves the messages of the model to the transcript.
    """
    values = {item.name: getattr(event, item.name) for item in fields(event)}
    if isinstance(event, HistoryAppended):
        values["message"] = {"role": event.message.get("role")}
    if "image" in values:
        values["image"] = view.image_sha256
    shown = None if body is None else _dump(body)
    record = None if isinstance(event, STREAM_ONLY) else _dump(values)
    return EventRow(view.session_id, None, None, view.time, type(event).__name__, shown, record)


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    return {item.name: getattr(value, item.name) for item in fields(value)} if is_dataclass(value) else str(value)


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.stored.done():
        entry.stored.set_exception(error)


def _forget(stored: asyncio.Future[list[Any]]) -> None:
    """Mark the error as seen: without a waiting caller, the journal's ``failure`` tells it."""
    if not stored.cancelled():
        stored.exception()


class Quota:
    """The limits of one server. ``full`` is true while all records together take more than they may."""

    def __init__(self, settings: Settings) -> None:
        self._session_bytes = settings.max_record_mb * MB
        self._total_bytes = settings.max_records_mb * MB
        self.full = False
        self._warned = False

    def problem(self, session_bytes: int) -> LimitReached | None:
        """Return the limit that a session with this much recorded has reached, or ``None``."""
        if self._session_bytes and session_bytes >= self._session_bytes:
            words = f"The recording of this session has reached its limit of {self._session_bytes / MB:g} MB."
            return LimitReached("max_record_mb", words)
        if self.full:
            words = f"All recordings together have reached their limit of {self._total_bytes / MB:g} MB."
            return LimitReached("max_records_mb", words)
        return None

    def warning(self, before: int, now: int) -> tuple[str, dict[str, Any]] | None:
        """Return words, and metadata of a status, when a session's record grew past :data:`WARN_AT` of its limit."""
        if not before < self._session_bytes * WARN_AT <= now:  # without a limit, never
            return None
        words = f"The recording takes {now / MB:.1f} MB; the turn ends at {self._session_bytes / MB:g} MB."
        return words, _metadata("max_record_mb", now, self._session_bytes)

    async def look(self, store: Store, sessions: Iterable[Session]) -> None:
        """Measure all records. Warn when their limit is near; at the limit remove the oldest runs, else end turns."""
        if not self._total_bytes:
            return
        total = await _size(store)
        if total >= self._total_bytes:
            removed = await prune(store, most=int(self._total_bytes * PRUNE_TO))
            freed = await sweep(store, FRESH_SECONDS)
            logger.warning("records at their limit; oldest runs removed: runs=%d bytes=%s", removed, freed)
            total = await _size(store)
        self.full = total >= self._total_bytes
        near = total >= self._total_bytes * WARN_AT
        for session in list(sessions):
            if self.full:
                await session.record_grew(session.record_bytes)
            elif near and not self._warned:
                await session.warn(*await self._total_warning(store, total))
        if near and not self._warned:
            logger.warning("records near their limit: bytes=%d limit=%d", total, self._total_bytes)
        self._warned = near

    async def _total_warning(self, store: Store, total: int) -> tuple[str, dict[str, Any]]:
        """Name the run that is removed first, so that a person can pin or export it in time."""
        first = next((session_id for session_id, _ in await store.sessions.removable()), None)
        words = f"All recordings take {total / MB:.0f} MB of {self._total_bytes / MB:g} MB; "
        words += f"the oldest run, {first}, is removed first." if first else "no ended run is left to remove."
        return words, _metadata("max_records_mb", total, self._total_bytes) | {"next_removed": first}


def _metadata(limit: str, now: int, most: float) -> dict[str, Any]:
    return {"event": "record_limit_near", "limit": limit, "bytes": now, "limit_bytes": int(most)}


async def _size(store: Store) -> int:
    return await store.screenshots.disk_bytes() + await store.database.live_bytes()
