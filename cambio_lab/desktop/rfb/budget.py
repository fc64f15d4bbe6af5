"""Limit what one desktop may cost the server.

A program of the desktop can answer on the VNC port instead of Xvnc, so the stream is hostile. The loop's time is shared
out (a desktop that wants more waits); messages that no honest server sends so often end the connection.
"""

from __future__ import annotations

import asyncio
import time

from cambio_lab.errors import DesktopLost

SLICE = 0.001
"""Seconds of CPU time after which a reader yields to the event loop."""
SHARE, RESERVE = 0.25, 0.05
"""CPU seconds per second for one desktop, and how many it may save up."""
SECONDS_PER_BYTE = 0.25e-9
"""CPU seconds of the loop that one byte received costs the kernel and asyncio (4 MB: 1 ms)."""
LIMITS = {
    "framebuffer updates": (200, 2000),
    "unrequested framebuffer updates": (20, 200),
    "bells": (2000, 20_000),
    "messages": (500, 5000),
    "changes of the screen's size": (5, 50),
    "clipboard bytes": (1 << 20, 32 << 20),
}
"""Per second, and at once. Full-screen video is 60 updates a second, each requested."""


class LimitExceeded(DesktopLost):
    """The desktop's VNC server sent more than an honest one does."""


class Bucket:
    """A token bucket: ``rate`` tokens a second, at most ``burst`` saved."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, time.monotonic()

    def take(self, amount: float = 1.0) -> float:
        """Take ``amount`` tokens; return the seconds until the debt is paid, 0 when there is none."""
        now = time.monotonic()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._level / self._rate)


class Budget:
    """One desktop's allowance. It outlives a connection, so that reconnecting gains nothing."""

    def __init__(self) -> None:
        self._buckets = {kind: Bucket(*limit) for kind, limit in LIMITS.items()}
        self._cpu = Bucket(SHARE, RESERVE)
        self._used = 0.0
        self._since: float | None = None

    def spend(self, kind: str, amount: float = 1.0) -> None:
        """Count ``amount`` of ``kind``, a key of :data:`LIMITS`. :class:`LimitExceeded` when that is too many."""
        if self._buckets[kind].take(amount):
            raise LimitExceeded(f"The desktop's VNC server sent too many {kind}.")

    def received(self, count: int) -> None:
        """Charge for ``count`` bytes that the loop received."""
        self._used += count * SECONDS_PER_BYTE

    def stop_clock(self) -> bool:
        """Stop counting CPU time, as the reader is about to wait; return whether it was counted."""
        if self._since is None:
            return False
        self._used += time.thread_time() - self._since
        self._since = None
        return True

    def start_clock(self, running: bool = True) -> None:
        """Count the event loop's CPU time from now on as the desktop's."""
        if running:
            self._since = time.thread_time()

    @property
    def due(self) -> bool:
        """Whether :meth:`pace` would yield."""
        return self._used >= SLICE

    async def pace(self) -> None:
        """Yield to the loop after a slice of CPU time; sleep while the desktop is over its share."""
        running = self.stop_clock()
        if self.due:
            pause = self._cpu.take(self._used)
            self._used = 0.0
            await asyncio.sleep(pause)
        self.start_clock(running)
