"""What a session records beyond its events: requests and replies to the byte, desktop calls with their results.

The agent waits for none of it: rows go to the store's writer, which commits in order. The rows of a step reach the
writer before the event that ends the step, so after a crash the record of an acknowledged step is whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from .._version import __version__
from ..agent.transports import Exchange, RecordingTransport
from ..desktop.base import Desktop, Screenshot
from ..errors import StoreError
from ..store import EventRow, ExchangeRow, Store
from . import BodyEncoder, calls, difference, dump_change, references
from .calls import HUMAN, ClientDesktop, RecordingDesktop
from .masking import Mask

if TYPE_CHECKING:
    import httpx2

    from ..agent.options import AgentOptions
    from ..agent.tools import ApprovalPolicy

log = logging.getLogger(__name__)
STARTED = "RecordingStarted"
OBSERVED = "Observed"


class HumanCall(NamedTuple):
    """What a person did, as the call to a desktop that does the same; ``at`` is when, in epoch seconds."""

    method: str
    arguments: Mapping[str, Any]
    at: float


class Recorder:
    """Records one session. Give the agent :meth:`desktop` and a client over :meth:`transport`."""

    def __init__(self, store: Store, session_id: str, *, first: int = 1) -> None:
        """``first`` is the number of the first exchange: one more than what a restarted session has already."""
        self._store = store
        self._session_id = session_id
        self._next = first
        self._encoder = BodyEncoder()
        self._calls = 0
        self._previous: tuple[int | None, bytes] = (None, b"")
        self._encoding: dict[int, asyncio.Task[tuple[str, bytes, list[str]]]] = {}
        self._last: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    async def open(cls, store: Store, session_id: str) -> Recorder:
        """Return a recorder that continues the record of this session."""
        return cls(store, session_id, first=await store.exchanges.count(session_id) + 1)

    def transport(self, inner: httpx2.AsyncBaseTransport) -> RecordingTransport:
        return RecordingTransport(inner, self)

    def desktop(self, desktop: Desktop) -> Desktop:
        """Return ``desktop`` for the agent: each of its calls is recorded."""
        return RecordingDesktop(desktop, self._observed, self._count)

    def client_desktop(self, desktop: Desktop, mask: Mask) -> Desktop:
        """Return ``desktop`` for clients: files, clipboard and screenshots are recorded, viewers are not."""
        return ClientDesktop(desktop, self._observed, self._keep_screenshot, self._count, mask)

    async def begin(
        self,
        facts: Mapping[str, Any] | None = None,
        *,
        options: AgentOptions | None = None,
        desktop: Desktop | None = None,
        approval: ApprovalPolicy | None = None,
    ) -> None:
        """Note what this recording is made with: versions, the agent's options, its desktop, and any other ``facts``.

        A replay sets the agent up with the same; no key and no address of the service is among them.
        """
        environment: dict[str, Any] = {"cambio_lab": __version__, "anthropic": _version("anthropic"), **(facts or {})}
        if options is not None:
            environment["options"] = {name: value for name, value in asdict(options).items() if name != "base_url"}
        if approval is not None:
            environment["approval"] = sorted(approval) if isinstance(approval, frozenset) else approval
        if desktop is not None:
            digest, isolated = desktop.image_digest, desktop.isolated
            environment["desktop"] = {"display": list(desktop.size), "image_digest": digest, "isolated": isolated}
            environment["desktop"]["browser"] = desktop.has_browser
        await self._submit(self._write(self._event(STARTED, environment)))

    async def aclose(self) -> None:
        """Wait until every row is on disk, or its loss is in the log."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # From the transport

    def sent(self, exchange: Exchange) -> None:
        exchange.number, self._next = self._next, self._next + 1
        task = asyncio.create_task(self._encode(exchange, self._last))
        self._encoding[exchange.number], self._last = task, task
        self._keep(task)

    async def ended(self, exchange: Exchange) -> None:
        try:
            digest, request, screenshots = await asyncio.shield(self._encoding.pop(exchange.number))
        except Exception:
            log.exception("session %s: request %d could not be recorded", self._session_id, exchange.number)
            return
        row = ExchangeRow(
            session_id=self._session_id,
            number=exchange.number,
            started_at=exchange.started_at,
            request_sha256=digest,
            request=request,
            status=exchange.status,
            headers=exchange.headers,
            response=exchange.response,
            first_byte_ms=exchange.first_byte_ms,
            total_ms=exchange.total_ms,
            error=exchange.error,
        )
        await self._submit(self._write_exchange(row, screenshots))

    async def _encode(self, exchange: Exchange, before: asyncio.Task[Any] | None) -> tuple[str, bytes, list[str]]:
        if before is not None and not before.done():
            await asyncio.wait({before})
        return await asyncio.to_thread(self._encode_now, exchange.number, exchange.body)

    def _encode_now(self, number: int, body: Sequence[bytes]) -> tuple[str, bytes, list[str]]:
        """In a thread while the model thinks. The whole body's digest is in ``RequestSent``."""
        made = self._encoder.encode(body)
        digest = hashlib.sha256(made).hexdigest()
        base, before = self._previous
        change = difference(base, before, made)
        self._previous = (number, made)
        return digest, dump_change(change), references(made)

    # From the desktop

    async def human(self, step: int, call: HumanCall | None, screenshot: Screenshot | None) -> None:
        """Record what a person did, and saw then, as calls that a replay on a desktop can repeat."""
        if call is not None:
            await self._human(step, call, {"none": True})
        if screenshot is not None:
            await self._human(step, HumanCall("screenshot", {}, time.time()), calls.encode(screenshot))

    async def _human(self, step: int, call: HumanCall, result: Mapping[str, Any]) -> None:
        arguments = calls.encode_arguments(dict(call.arguments))
        about = {"by": HUMAN, "step": step, "method": call.method, "arguments": arguments, "at": call.at, "ms": 0.0}
        await self._observed({**about, "number": self._count(), "result": result})

    def _count(self) -> int:
        """Number a call as it begins: calls are stored as they end, and may overlap."""
        self._calls += 1
        return self._calls

    async def _observed(self, record: dict[str, Any]) -> None:
        await self._submit(self._write(self._event(OBSERVED, record)))

    async def _keep_screenshot(self, screenshot: Screenshot) -> None:
        await self._submit(self._put(screenshot))

    async def _put(self, screenshot: Screenshot) -> None:
        await self._store.screenshots.put(screenshot.data, screenshot.media_type)
        await self._store.write(self._store.sessions.growing(self._session_id, len(screenshot.data)))

    def _event(self, kind: str, record: Mapping[str, Any]) -> EventRow:
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
        return EventRow(self._session_id, None, None, time.time(), kind, None, text)

    async def _write(self, row: EventRow) -> None:
        await self._store.events.append([row])

    async def _write_exchange(self, row: ExchangeRow, screenshots: Sequence[str]) -> None:
        await self._store.write(self._store.exchanges.appending(row, screenshots))

    async def _submit(self, write: Coroutine[Any, Any, None]) -> None:
        """Begin ``write`` and let it reach the writer's queue; do not wait for the disk."""
        self._keep(asyncio.create_task(write))
        await asyncio.sleep(0)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        # what comes next must not build on what is not there
        self._previous = (None, b"")
        if isinstance(error, StoreError):
            log.error("session %s: a part of its record is lost: %s", self._session_id, error.describe())
        else:
            log.error("session %s: a part of its record is lost", self._session_id, exc_info=error)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
