"""Decide when the screen has settled, and how often to request updates while no caller waits.

*Settled* means that for a quiet period (default 80 ms) nothing changed but what changes all the time anyway. A spinner
or a video is learned from updates that no input provoked: a tile that keeps changing in quick succession is *restless*
and no longer counts, until it has been still for a while; beside a restless tile, less quick a succession will do. A
blinking cursor changes too slowly to keep a wait open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .base import Settled, Size
from .screen import Rect

TILE = 32
"""Pixels; the finest place that can be restless."""
PROVOKED = 0.25
"""Seconds after an input in which a change is taken for its effect and teaches nothing."""
SUCCESSION = 0.3
"""Longest gap in seconds between two changes of a restless tile while learning."""
LESSON = 4
"""Changes in succession that make a tile restless."""
SPAN = 0.2
"""Seconds that a lesson lasts at least: a burst of updates for one change is no animation."""
FORGET = 1.5
"""Seconds of stillness after which a restless tile counts again."""
ATTENTION = 1.0
"""Seconds after a wait in which updates are asked for at once; later at growing intervals."""
IDLE_FIRST, IDLE_LAST = 0.1, 0.5


class Watch:
    """Asks for updates at the right pace, learns restless tiles, and answers :meth:`settle`.

    ``request`` sends one incremental update request. ``quiet`` and ``cap`` are seconds.
    """

    def __init__(self, request: Callable[[], None], size: Size, quiet: float, cap: float) -> None:
        self.quiet, self.cap = quiet, cap
        self._request = request
        self._clock = asyncio.get_running_loop().time
        self._outstanding = False
        self._later: asyncio.TimerHandle | None = None
        self._idle = IDLE_FIRST
        self._waiters = 0
        now = self._clock()
        self._attentive_until = self._watching_since = self._last_damage = self._last_update = now
        self._last_input = now - 60.0
        self._shape(size)

    def _shape(self, size: Size) -> None:
        self._size = size
        shape = (-(-size.height // TILE), -(-size.width // TILE))
        self._changed = np.full(shape, -60.0)
        self._began = np.full(shape, -60.0)
        self._streak = np.zeros(shape, np.int32)
        self._restless = np.zeros(shape, np.bool_)

    def resize(self, size: Size) -> None:
        """Forget everything learned: the tiles are others now."""
        if size != self._size:
            self._shape(size)

    @property
    def restless(self) -> int:
        """How many tiles are restless now."""
        return int(self._restless.sum())

    @property
    def still(self) -> float:
        """Seconds since the last update."""
        return self._clock() - self._last_update

    def connected(self) -> None:
        """A new connection: nothing is outstanding on it."""
        self._outstanding = False
        self._ask()

    def input_sent(self) -> None:
        """Something was pressed or moved: what follows is its effect."""
        self._last_input = self._clock()

    def updated(self, damage: list[Rect]) -> None:
        """An update arrived; the next request goes out now or, when no caller waits, a little later."""
        self._outstanding = False
        now = self._clock()
        if now - self._last_update > ATTENTION:
            self._idle = IDLE_FIRST  # something began to move: look closely, so that it can be learned
        self._last_update = now
        if damage and self._learn(damage, now):
            self._last_damage = now
        if self._waiters or now < self._attentive_until:
            self._idle = IDLE_FIRST
            self._ask()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(self._idle, self._ask)
            self._idle = min(self._idle * 1.5, IDLE_LAST)

    def _ask(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if not self._outstanding:
            self._outstanding = True
            self._request()

    def _learn(self, damage: list[Rect], now: float) -> bool:
        """Note which tiles changed; true if any of them counts as damage."""
        hit = np.zeros_like(self._restless)
        for x, y, width, height in damage:
            hit[y // TILE : -(-(y + height) // TILE), x // TILE : -(-(x + width) // TILE)] = True
        still = now - self._changed
        self._restless &= still < FORGET
        counts = bool((hit & ~self._restless).any())
        # At its rim an animation comes by only now and then: pauses of a whole round are no ends there, and that an
        # input came in between says nothing.
        rim = _spread(self._restless)
        lesson = hit if now - self._last_input > PROVOKED else hit & rim
        goes_on = lesson & ((still < SUCCESSION) | (rim & (still < FORGET)))
        fresh = lesson & ~goes_on
        self._streak[goes_on] += 1
        self._streak[fresh] = 1
        self._began[fresh] = now
        self._restless |= lesson & (self._streak >= LESSON) & (now - self._began >= SPAN)
        self._changed[hit] = now
        return counts

    async def settle(
        self,
        *,
        quiet: float | None = None,
        cap: float | None = None,
        expect: float = 0.0,
        calm: Callable[[], None] | None = None,
    ) -> Settled:
        """Wait until nothing that counts has changed for the quiet period, or the cap.

        ``expect``: something is known to come; for so many seconds after the last input, its absence is not quiet.
        ``calm`` is called when half of the quiet period is over: the screen will most likely stay as it is.
        """
        quiet, cap = quiet or self.quiet, cap or self.cap
        begin = self._clock()
        if not self._outstanding:
            if self._later is not None or begin >= self._attentive_until:
                self._watching_since = begin
            self._ask()
        self._waiters += 1
        calm_for = 0.0
        try:
            while True:
                now = self._clock()
                quiet_at = max(self._last_input, self._last_damage, self._watching_since) + quiet
                if self._last_damage < self._last_input:
                    quiet_at = max(quiet_at, self._last_input + expect)
                if now >= quiet_at:
                    return Settled((now - begin) * 1000, True)
                if now - begin >= cap:
                    return Settled((now - begin) * 1000, False)
                # Damage that was expected ends that wait before its time: look again soon.
                half_at = quiet_at - quiet / 2
                if calm is not None and calm_for != quiet_at:
                    if now >= half_at:
                        calm_for = quiet_at
                        calm()
                    else:
                        quiet_at = half_at
                pause = min(quiet_at, begin + cap) - now
                await asyncio.sleep(min(pause, quiet) if expect else pause)
        finally:
            self._waiters -= 1
            self._attentive_until = self._clock() + ATTENTION

    def close(self) -> None:
        """Stop asking."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._outstanding = True


def _spread(tiles: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """``tiles`` and all that touch one of them, corners included."""
    if not tiles.any():
        return tiles
    tall = tiles.copy()
    tall[1:] |= tiles[:-1]
    tall[:-1] |= tiles[1:]
    wide = tall.copy()
    wide[:, 1:] |= tall[:, :-1]
    wide[:, :-1] |= tall[:, 1:]
    return wide
