"""Whose request goes first: callers without a credential that is known to be good take turns.

A refused request costs half a millisecond. A hundred connections that repeat one as fast as they are answered made
everyone else wait for 60 to 110 ms, because the event loop served all of them between two steps of any other request.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

from tornado.web import RequestHandler

REQUESTS_PER_TURN = 2
"""Of callers that are not known, which begin in one turn of the event loop."""
KNOWN = 1024
"""Credentials; the one that was not used for longest is forgotten first."""
_TOKEN = re.compile(r"[?&]token=([^&]*)")


class Pace:
    """Which credentials passed Jupyter's identity provider lately, and who waits."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, None] = OrderedDict()
        self._queue: deque[asyncio.Future[None]] = deque()
        self._begun = 0

    def turn(self, uri: str, headers: Mapping[str, str]) -> asyncio.Future[None] | None:
        """Return ``None`` where a request with these headers may begin now, else what to wait for."""
        credential = _credential(uri, headers)
        if credential in self._known:
            self._known.move_to_end(credential)
            return None
        loop = asyncio.get_running_loop()
        if self._begun < REQUESTS_PER_TURN and not self._queue:
            self._begin(1)
            return None
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.append(turn)
        return turn

    def note(self, handler: RequestHandler) -> None:
        """Let what this request showed go first from now on, if its user was let in with it."""
        request = handler.request
        if vars(handler).get("_jupyter_current_user") is not None:
            self._known[_credential(request.uri or "", request.headers)] = None
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)

    def noting(self, log: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return ``log``, Tornado's ``log_function``, with :meth:`note` before it."""

        def both(handler: RequestHandler) -> None:
            self.note(handler)
            log(handler)

        return both

    def _begin(self, count: int) -> None:
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun += count

    def _next_turn(self) -> None:
        self._begun = 0
        while self._queue and self._begun < REQUESTS_PER_TURN:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                self._begin(1)


def _credential(uri: str, headers: Mapping[str, str]) -> int:
    """A number for what a request shows of its caller; Python's hashes differ from process to process."""
    token = _TOKEN.search(uri)
    return hash((headers.get("Authorization", ""), headers.get("Cookie", ""), token and token[1]))
