"""This machine: attempts as asyncio tasks of one process, as many desktops as memory and cores carry."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ..attempt import Attempt
from ..outcome import AttemptProgress, Outcome
from ..workplace import Workplace
from .base import AttemptLost, Job, Plan

logger = logging.getLogger(__name__)
DESKTOP_BYTES = 700 * 1024**2
"""Memory of a desktop with Firefox on a page and an editor; ``benchmarks/experiments.py memory`` measures it."""
KEPT_BYTES = 1024**3
"""Left to the rest of the machine."""
DESKTOPS_PER_CORE = 4.0
"""An agent waits for its model most of the time; at this many per core an action still settles as fast as alone."""


class LocalEngine:
    """The default engine; ``concurrency`` overrides the measured one."""

    name = "local"

    def __init__(self) -> None:
        self._place: Workplace | None = None
        self._attempts: dict[str, Attempt] = {}
        self._slots = 1

    async def start(self, plan: Plan) -> None:
        assert plan.store is not None, "the local engine works in the experiment's own store"
        self._slots = plan.wanted or default_concurrency(plan.settings.max_desktops)
        self._place = Workplace(
            plan.store,
            plan.settings,
            owner=plan.experiment_id,
            runs=plan.directory / "runs",
            make=plan.make_provider,
        )
        await self._place.open(plan.models)

    async def slots(self) -> int:
        return self._slots

    async def recover(self, attempts: Sequence[AttemptProgress]) -> tuple[list[Outcome], set[str]]:
        """Charge what attempts had spent: they die with their process, and the store has their counts."""
        found = [await self._running.lost(attempt) for attempt in attempts]
        return [outcome for outcome in found if outcome is not None], set()

    async def run(self, job: Job) -> Outcome:
        attempt = self._attempts[job.attempt] = Attempt(self._running, job)
        try:
            return await attempt.run()
        finally:
            del self._attempts[job.attempt]

    async def settled(self, outcome: Outcome) -> None:
        """Nothing was kept for it."""

    async def progress(self, *, thumbnails: bool) -> list[AttemptProgress]:
        found = await asyncio.gather(*(one.progress(thumbnails=thumbnails) for one in list(self._attempts.values())))
        return list(found)

    async def stop(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            await place.close()

    @property
    def _running(self) -> Workplace:
        if self._place is None:
            raise AttemptLost("The engine has been stopped.")
        return self._place


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
