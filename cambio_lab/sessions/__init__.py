"""A session's life: one desktop, one conversation, one state machine. Knows nothing of the web.

Here is what the sessions of a server share and hand out: events of one session to its readers, and summaries of all
sessions to theirs. Each reader has a queue with a limit in bytes; a reader that falls behind reads on from the store.
It gets every event after its position once and in order, whether it comes from memory or from disk, because an event is
published only after it was stored. Nothing here grows with a slow reader.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from cambio_lab.errors import InvalidRequest
from cambio_lab.events import Event, Status, Usage
from cambio_lab.settings import Settings
from cambio_lab.store import EventRow, Store

if TYPE_CHECKING:
    from .agent import AgentFactory
    from .creation import Creation
    from .journal import Quota
    from .state import SessionState

Fetch = Callable[..., Awaitable[list[tuple[int, str]]]]
"""``(position, stream=...)`` -> the next stored ``(sequence, body without sequence)``, oldest first."""


@dataclass(frozen=True, slots=True)
class SessionView:
    """The session at the moment of one event. ``time`` is the event's, in epoch seconds.

    ``message_id`` is the user message of the running turn, ``reply_id`` the stored answer (at its end only),
    ``image_sha256`` the digest of the screenshot that the event carries, ``cost_usd`` what the reply cost whose first
    call the event is about, ``denied`` whether a person denied that call, ``turn_usage`` what the running turn has
    used so far.
    """

    session_id: str
    time: float
    state: Status
    steps: int
    usage: Usage
    message_id: str | None = None
    reply_id: str | None = None
    image_sha256: str | None = None
    control: str | None = None
    cost_usd: float | None = None
    denied: bool = False
    turn_usage: Usage | None = None


Encode = Callable[[Event, SessionView], dict[str, Any] | None]
"""Turns an event into the body of a message (without ``sequence``), or ``None`` when no socket shows it."""


class Viewer(Protocol):
    """A connection that watches the desktop."""

    name: str

    def may_act_changed(self) -> None:
        """Called on the event loop at the moment in which :meth:`Session.may_act` may answer differently."""

    def report(self) -> None:
        """Called on the event loop to have the session told at once of what this viewer did."""

    def session_ended(self, reason: str) -> None:
        """Called once, on the event loop, when there is nothing to watch any more."""


class Clock(Protocol):
    """Wall time for what people read, monotonic time for durations: the wall clock may be set."""

    def time(self) -> float: ...

    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the sessions of a server share."""

    settings: Settings
    store: Store
    encode: Encode
    clock: Clock
    quota: Quota
    make_agent: AgentFactory
    changed: Callable[[SessionState], None]
    """Called after anything that a listing shows has changed."""
    failed: Callable[[str, str], None]
    """Called with a session's id and a reason when it cannot go on; the registry ends it."""
    notify: Callable[[str, str, Sequence[str]], None]
    """Called with a session's name, what its agent asks, and the choices: a person is needed."""


def with_sequence(body: str, sequence: int) -> str:
    """``body`` (a JSON object with at least one key) with ``"sequence"`` added."""
    return f'{body[:-1]},"sequence":{sequence}}}'


class Broadcast:
    """The listeners of one session."""

    def __init__(self, fetch: Fetch, sequence: int = 0, stream_sequence: int = 0) -> None:
        self.sequence = sequence
        self.stream_sequence = stream_sequence
        self.closed = False
        self._fetch = fetch
        self._readers: set[Subscription] = set()

    def __len__(self) -> int:
        return len(self._readers)

    def subscribe(self, *, after: int | None, stream: bool, max_bytes: int) -> Subscription:
        """A reader from ``after`` on, or from now; :class:`InvalidRequest` for a number that was never given."""
        newest = self.newest(stream)
        if after is not None and not 0 <= after <= newest:
            raise InvalidRequest(
                f"after is {after}, and the last event is {newest}.", details={"after": f"between 0 and {newest}"}
            )
        reader = Subscription(self, newest if after is None else after, stream, max_bytes)
        self._readers.add(reader)
        return reader

    def publish(self, rows: Iterable[EventRow]) -> None:
        """Hand out events that are stored; never waits for a reader."""
        for row in rows:
            if row.body is None or row.stream_sequence is None:
                continue
            numbers = {True: row.stream_sequence, False: row.sequence}
            texts = {stream: with_sequence(row.body, number) for stream, number in numbers.items() if number}
            self.stream_sequence, self.sequence = row.stream_sequence, row.sequence or self.sequence
            for reader in self._readers:
                if number := numbers[reader.stream]:
                    reader._offer(number, texts[reader.stream])

    def newest(self, stream: bool) -> int:
        return self.stream_sequence if stream else self.sequence

    def close(self) -> None:
        """Let every reader end once it has read everything."""
        self.closed = True
        for reader in self._readers:
            reader._wake.set()


class Subscription:
    """One reader: an asynchronous iterator of ``(sequence, JSON text)``. Close it with :meth:`close`."""

    def __init__(self, source: Broadcast, position: int, stream: bool, max_bytes: int) -> None:
        self.position = position
        """The number of the last event that was handed out (at first: the one to continue from)."""
        self.stream = stream
        self.lagged = 0
        """How often the queue was full and the reader was sent to the store."""
        self._source = source
        self._max_bytes = max_bytes
        self._queue: deque[tuple[int, str]] = deque()
        self._bytes = 0
        self._behind = position < source.newest(stream)
        self._last = position
        self._wake = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, str]:
        """The next event; ends after the session's last one or :meth:`close`.

        Raises :class:`~cambio_lab.errors.StoreError` when what was missed cannot be read now.
        """
        while not self._closed:
            if self._queue:
                sequence, text = self._queue.popleft()
                self._bytes -= len(text)
                self.position = sequence
                return sequence, text
            if self._behind:
                await self._catch_up()
                continue
            if self._source.closed:
                break
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    def close(self) -> None:
        """Leave; a caller that waits in it gets its end. Idempotent."""
        self._closed = True
        self._queue.clear()
        self._source._readers.discard(self)
        self._wake.set()

    def _offer(self, number: int, text: str) -> None:
        if self._behind:
            return  # it is in the store, where this reader is reading
        if number <= self._last:
            return  # read from the store already, which has it a moment before it is published
        if self._bytes + len(text) > self._max_bytes and self._queue:
            self._queue.clear()
            self._bytes = 0
            self._last = self.position
            self._behind = True
            self.lagged += 1
        else:
            self._queue.append((number, text))
            self._bytes += len(text)
            self._last = number
        self._wake.set()

    async def _catch_up(self) -> None:
        """Read one page of what was missed; the reader is live again once it has the newest."""
        rows = await self._source._fetch(self.position, stream=self.stream)
        for sequence, body in rows:
            text = with_sequence(body, sequence)
            self._queue.append((sequence, text))
            self._bytes += len(text)
        self._last = rows[-1][0] if rows else self.position
        # No await from here to the return: nothing can be published in between.
        # Without rows there is nothing to wait for: an ended session's record may have been pruned meanwhile.
        self._behind = bool(rows) and self._last < self._source.newest(self.stream)


class Feeds(set["SessionFeed"]):
    """The listeners of all sessions."""

    def tell(self, session: SessionState | Creation) -> None:
        for feed in self:
            feed.tell(session)


class SessionFeed:
    """An asynchronous iterator of ``Session.describe()`` bodies; close it with :meth:`close`.

    It holds at most one entry for each session that changed, so a slow listener misses intermediate states and
    nothing else.
    """

    def __init__(self, watches: set[SessionFeed], sessions: Iterable[SessionState | Creation]) -> None:
        self._watches = watches
        self._changed = {session.id: session for session in sessions}
        self._wake = asyncio.Event()
        self._closed = False
        watches.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._closed:
            if self._changed:
                session = self._changed.pop(next(iter(self._changed)))
                return session.describe()
            self._wake.clear()
            await self._wake.wait()
        raise StopAsyncIteration

    def tell(self, session: SessionState | Creation) -> None:
        self._changed[session.id] = session
        self._wake.set()

    def close(self) -> None:
        """Idempotent; a caller that waits in it gets its end."""
        self._closed = True
        self._watches.discard(self)
        self._wake.set()
