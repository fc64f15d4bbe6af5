"""What an experiment may use: money, steps and time; requests to a throttled model service; desktops of a machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from ..agent.client import ModelClient
from ..agent.service_errors import Transient
from ..agent.transcript import Body
from ..errors import CambioError

DESKTOP_BYTES = 700 * 1024**2
"""Memory of a desktop with Firefox on a page and an editor; ``benchmarks/experiments.py memory`` measures it."""
KEPT_BYTES = 1024**3
"""Left to the rest of the machine."""
DESKTOPS_PER_CORE = 4.0
"""An agent waits for its model most of the time; at this many per core an action still settles as fast as alone."""
LEAST_USD = 0.001
"""Less than this buys not one request: the cap counts as reached."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one attempt may use."""

    cost_usd: float
    steps: int
    short: bool = False
    """Less than was asked for: the experiment's cap, not the cell's own limit, may end the attempt."""


class Budget:
    """Spent and set aside. ``spent_*`` starts with what earlier attempts used, those of killed processes included.

    ``None`` is no cap. ``max_seconds`` is wall time of this call of ``run``.
    """

    def __init__(
        self,
        *,
        max_cost_usd: float | None = None,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        spent_usd: float = 0.0,
        spent_steps: int = 0,
    ) -> None:
        self._most_usd = inf if max_cost_usd is None else max_cost_usd
        self._most_steps = inf if max_steps is None else max_steps
        self._most_seconds = inf if max_seconds is None else max_seconds
        self.spent_usd = spent_usd
        self.spent_steps = spent_steps
        self._held: dict[str, Allowance] = {}
        self._began = time.monotonic()

    @property
    def reached(self) -> str | None:
        """Which cap is reached for good (nothing set aside can come back), or ``None``."""
        if time.monotonic() - self._began >= self._most_seconds:
            return "max_seconds"
        if self._most_usd - self.spent_usd < LEAST_USD:
            return "max_cost_usd"
        if self.spent_steps >= self._most_steps:
            return "max_steps"
        return None

    def admit(self, attempt: str, *, cost_usd: float, steps: int) -> Allowance | None:
        """Set aside what ``attempt`` may need, or less when less is left; ``None``: wait for others to end.

        A cell is given less than it asks for only when nothing else runs: otherwise what others return may do.
        ``cost_usd`` and ``steps`` are the cell's own limits, 0 for none.
        """
        left_usd = self._most_usd - self.spent_usd - sum(held.cost_usd for held in self._held.values())
        left_steps = self._most_steps - self.spent_steps - sum(held.steps for held in self._held.values())
        if left_usd < LEAST_USD or left_steps <= 0:
            return None
        wants_usd, wants_steps = cost_usd or inf, steps or inf
        short = wants_usd > left_usd or wants_steps > left_steps
        if short and self._held:
            return None
        given_usd, given_steps = min(wants_usd, left_usd), min(wants_steps, left_steps)
        allowance = Allowance(
            0.0 if given_usd == inf else given_usd, 0 if given_steps == inf else int(given_steps), short
        )
        self._held[attempt] = allowance
        return allowance

    def settle(self, attempt: str, *, cost_usd: float, steps: int) -> None:
        """``attempt`` ended, having used this much; its allowance comes back."""
        self._held.pop(attempt, None)
        self.spent_usd += cost_usd
        self.spent_steps += steps


FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
APART = 0.05
"""Seconds between requests that were held back together."""


class Pace:
    """Shared by every model client of a process. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._until = 0.0
        self._wait = FIRST_WAIT
        self._probe: asyncio.Lock = asyncio.Lock()
        self._held = False
        self._next = 0.0

    @property
    def hold_seconds(self) -> float:
        """How long requests are held back from now; 0 when they are not."""
        return max(0.0, self._until - time.monotonic())

    @asynccontextmanager
    async def request(self) -> AsyncGenerator[bool, None]:
        """Wait until a request may go. Yields whether it goes first; :meth:`answered` or :meth:`hold` follow then."""
        if not self._held:
            yield False
            return
        async with self._probe:
            if self.held:
                await asyncio.sleep(self.hold_seconds)
                yield True
                return
        # The first was answered while we waited.
        now = time.monotonic()
        self._next = max(self._next + APART, now)
        await asyncio.sleep(self._next - now)
        yield False

    def hold(self, seconds: float | None) -> None:
        """The service (or another process that uses it) asks to wait; ``None``: it does not say how long."""
        pause = self._wait if seconds is None else seconds
        if seconds is None:
            self._wait = min(self._wait * 2, LONGEST_WAIT)
        self._until = max(self._until, time.monotonic() + pause)
        self._held = True

    def answered(self) -> None:
        """The service answers again."""
        self._held, self._wait = False, FIRST_WAIT

    @property
    def held(self) -> bool:
        """Whether the service has not answered since it asked to wait."""
        return self._held


class PacedClient(ModelClient):
    """The real client, held back by a shared :class:`Pace`. ``rejected`` is the last error that is not retried."""

    pace: Pace
    rejected: CambioError | None = None

    @classmethod
    def made(cls, pace: Pace, **options: Any) -> PacedClient:
        client = cls(**options)
        client.pace = pace
        return client

    async def stream(self, parameters: dict[str, Any], body: Body) -> AsyncGenerator[Any, None]:
        async with self.pace.request() as first:
            try:
                async with aclosing(super().stream(parameters, body)) as pieces:
                    async for piece in pieces:
                        yield piece
                        if first:
                            self.pace.answered()
            except Transient as problem:
                if not problem.broken:
                    self.pace.hold(problem.retry_after)
                raise
            except CambioError as error:
                self.rejected = error
                raise


def default_concurrency(most: int = 32) -> int:
    """How many desktops this machine carries at once: at least 1, at most ``most``."""
    by_memory = (available_bytes() - KEPT_BYTES) // DESKTOP_BYTES
    by_cores = int((os.cpu_count() or 1) * DESKTOPS_PER_CORE)
    return max(1, min(int(by_memory), by_cores, most))


def available_bytes() -> int:
    """Memory that programs can still have: of the machine, or of the control group when that is less."""
    free = _meminfo()
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = Path(limit).read_text().strip(), Path(used).read_text().strip()
        except OSError:
            continue  # the other version of control groups, or none
        if most.isdigit():
            free = min(free, max(0, int(most) - int(now)))
    return free


def _meminfo() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: half of what is installed
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
