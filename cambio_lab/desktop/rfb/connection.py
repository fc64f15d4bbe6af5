"""A desktop's RFB connection kept alive: screen and settling survive a reconnect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from cambio_lab.errors import DesktopLost

from ..base import Settled, Size, VncEndpoint
from ..screen import Rect, Screen
from ..settle import Watch
from . import Bucket, Budget, LimitExceeded
from .client import PIXEL, RfbClient

log = logging.getLogger(__name__)

_FIRST_UPDATE = 15.0
"""Seconds within which a desktop that accepted us shows itself."""
_STILL, _ANSWER = 3.0, 4.0
"""Seconds without an update after which a server is asked for a pixel, and for its answer."""
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds before each attempt to reconnect to a desktop that still lives."""
_RECONNECT_SECONDS = 20.0
"""Seconds in which all attempts must end."""
_RECONNECTS = (1 / 30, 20)
"""Attempts for one desktop: per second, and at once."""
_VIOLATIONS = (1 / 600, 1)
"""How often a desktop may exceed a limit before it is lost: per second, and at once."""


class Connection:
    """``alive`` is asked when the connection drops: is there still a desktop to reconnect to? ``cause``: why not?"""

    def __init__(
        self,
        endpoint: VncEndpoint,
        alive: Callable[[], Awaitable[bool]],
        cause: Callable[[], Awaitable[str]],
        *,
        quiet: float,
        cap: float,
    ) -> None:
        self._endpoint, self._alive, self._cause = endpoint, alive, cause
        self._client: RfbClient | None = None
        self._closed = False
        self._silent = False
        """We gave a connection up ourselves: the first attempt needs no engine that says that the desktop lives."""
        self._budget = Budget()
        self._allowed = Bucket(*_RECONNECTS)
        self._violations = Bucket(*_VIOLATIONS)
        self._failure = self._complaint = ""
        self._ready = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._seen: asyncio.Future[None] = loop.create_future()
        self._reason: asyncio.Future[str] = loop.create_future()
        self.screen = Screen(Size(1, 1))
        self.watch = Watch(self._request, self.screen.size, quiet, cap)
        self.reconnects = 0

    async def open(self) -> None:
        """Connect for the first time and receive the whole screen once."""
        await self._connect()
        self._supervisor = asyncio.create_task(self._supervise(), name="rfb-supervisor")

    async def _connect(self) -> None:
        client = self._client = await RfbClient.connect(self._endpoint, self._updated, self.screen, self._budget)
        try:
            self._seen = asyncio.get_running_loop().create_future()
            client.request_update(incremental=False)
            self.watch.connected()
            # A screenshot before the first update would be black.
            either: list[asyncio.Future[Any]] = [self._seen, client.closed]
            await asyncio.wait(either, timeout=_FIRST_UPDATE, return_when=asyncio.FIRST_COMPLETED)
            if not self._seen.done():
                raise DesktopLost("The desktop's VNC server sends no framebuffer update.")
        except BaseException:
            await client.close()
            raise
        self._ready.set()

    def _request(self) -> None:
        if self._client is not None and self._client.usable:
            self._client.request_update()

    def _updated(self, damage: list[Rect]) -> None:
        if not self._seen.done():
            self._seen.set_result(None)
        self.watch.resize(self.screen.size)
        self.watch.updated([rect for rect in damage if rect != PIXEL])

    async def _supervise(self) -> None:
        while True:
            assert self._client is not None
            await asyncio.wait([self._client.closed])
            self._ready.clear()
            self._note_failure(self._client.closed.result())
            if not await self._reconnect():
                break
        self._reason.set_result(self._failure or self._complaint or await self._cause())
        self._ready.set()

    def _note_failure(self, error: Exception | None) -> None:
        if isinstance(error, DesktopLost):
            self._complaint = str(error)
        if isinstance(error, LimitExceeded) and self._violations.take():
            self._failure = str(error)
            log.warning("desktop lost: %s", error)

    async def _reconnect(self) -> bool:
        """Connect again, with growing pauses; return false when the desktop is lost."""
        try:
            async with asyncio.timeout(_RECONNECT_SECONDS):
                for pause in _PAUSES:
                    await asyncio.sleep(pause)
                    if self._failure or self._allowed.take():
                        return False
                    # What its VNC server did is the reason only while the desktop itself lives.
                    complaint, self._complaint = self._complaint, ""
                    if not self._silent and not await self._alive():
                        return False
                    self._complaint, self._silent = complaint, False
                    try:
                        await self._connect()
                    except DesktopLost as error:
                        self._note_failure(error)
                        log.info("reconnecting to a desktop failed: %s", error)
                    except Exception:  # of a hostile desktop: without a supervisor every action would wait
                        log.exception("reconnecting to a desktop failed")
                    else:
                        self.reconnects += 1
                        log.info("the connection to a desktop was dropped and restored")
                        return True
        except TimeoutError:
            log.info("reconnecting to a desktop timed out")
        return False

    @property
    def connected(self) -> bool:
        """Whether the desktop answered last."""
        return self._client is not None and self._client.usable and not self._reason.done()

    async def client(self) -> RfbClient:
        """The living client; waits while it reconnects. :class:`~cambio_lab.errors.DesktopLost` when that is over."""
        while True:
            await self._ready.wait()
            if self._closed:
                raise DesktopLost("The desktop was closed.")
            if self._reason.done():
                raise DesktopLost(self._reason.result())
            assert self._client is not None
            if self._client.usable:
                return self._client
            await asyncio.sleep(0.001)  # the supervisor is about to notice

    async def _answering(self) -> RfbClient:
        """Return the living client. After a while without an update, check first that the server still sends any.

        Xvnc sometimes stops sending updates to a client that was idle for a minute, also when all pixels are requested.
        """
        client = await self.client()
        if self.watch.still < _STILL:
            return client
        if self._seen.done():
            self._seen = asyncio.get_running_loop().create_future()
        client.request_pixel()
        either: list[asyncio.Future[Any]] = [self._seen, client.closed]
        await asyncio.wait(either, timeout=_ANSWER, return_when=asyncio.FIRST_COMPLETED)
        if not self._seen.done() and not client.closed.done():
            self._silent = True
            client.give_up("The desktop's VNC server sends no framebuffer update.")
        return await self.client()

    async def settle(self, expect: float = 0.0, calm: Callable[[], None] | None = None) -> Settled:
        """Wait until the screen is quiet and not in the middle of an update; see :meth:`Watch.settle`."""
        client = await self._answering()
        settled = await self.watch.settle(expect=expect, calm=calm)
        await client.whole.wait()
        return settled

    async def lost(self) -> str:
        """Wait until the desktop is gone for good; the reason."""
        return await asyncio.shield(self._reason)

    async def close(self) -> None:
        self._closed = True
        self._ready.set()  # callers that wait for a client get their error
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
        self.watch.close()
        if self._client is not None:
            await self._client.close()
