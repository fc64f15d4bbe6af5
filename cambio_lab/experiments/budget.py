"""Caps on the whole experiment: money, steps, time. They hold for every engine.

A cell starts only with an allowance set aside for it, so that cells running at once cannot together pass the cap; the
allowance becomes its session's own limit. What it did not use comes back when it ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

LEAST_USD = 0.001
"""Less than this buys not one request: the cap counts as reached."""


@dataclass(frozen=True, slots=True)
class Caps:
    """``None`` is no cap. ``max_seconds`` is wall time of this call of ``run``, in seconds."""

    max_cost_usd: float | None = None
    max_steps: int | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one attempt may use."""

    cost_usd: float
    steps: int
    short: bool = False
    """Less than was asked for: the experiment's cap, not the cell's own limit, may end the attempt."""


class Budget:
    """Spent and set aside. ``spent_*`` starts with what earlier attempts used, those of killed processes included."""

    def __init__(self, caps: Caps, *, spent_usd: float = 0.0, spent_steps: int = 0) -> None:
        self.caps = caps
        self.spent_usd = spent_usd
        self.spent_steps = spent_steps
        self._held: dict[str, Allowance] = {}
        self._began = time.monotonic()

    @property
    def reached(self) -> str | None:
        """Which cap is reached for good (nothing set aside can come back), or ``None``."""
        if self.caps.max_seconds is not None and time.monotonic() - self._began >= self.caps.max_seconds:
            return "max_seconds"
        if self.caps.max_cost_usd is not None and self.caps.max_cost_usd - self.spent_usd < LEAST_USD:
            return "max_cost_usd"
        if self.caps.max_steps is not None and self.spent_steps >= self.caps.max_steps:
            return "max_steps"
        return None

    def admit(self, attempt: str, *, cost_usd: float, steps: int) -> Allowance | None:
        """Set aside what ``attempt`` may need, or less when less is left; ``None``: wait for others to end.

        A cell is given less than it asks for only when nothing else runs: otherwise what others return may do.
        ``cost_usd`` and ``steps`` are the cell's own limits, 0 for none.
        """
        left_usd, left_steps = self._left()
        if left_usd < LEAST_USD or left_steps <= 0:
            return None
        wants_usd = cost_usd or float("inf")
        wants_steps = steps or float("inf")
        short = (wants_usd > left_usd and left_usd < float("inf")) or (wants_steps > left_steps)
        if short and self._held:
            return None
        given_usd, given_steps = min(wants_usd, left_usd), min(wants_steps, left_steps)
        allowance = Allowance(
            0.0 if given_usd == float("inf") else given_usd,
            0 if given_steps == float("inf") else int(given_steps),
            short,
        )
        self._held[attempt] = allowance
        return allowance

    def settle(self, attempt: str, *, cost_usd: float, steps: int) -> None:
        """``attempt`` ended, having used this much; its allowance comes back."""
        self._held.pop(attempt, None)
        self.spent_usd += cost_usd
        self.spent_steps += steps

    def _left(self) -> tuple[float, float]:
        usd = float("inf") if self.caps.max_cost_usd is None else self.caps.max_cost_usd - self.spent_usd
        steps = float("inf") if self.caps.max_steps is None else float(self.caps.max_steps - self.spent_steps)
        for held in self._held.values():
            usd -= held.cost_usd
            steps -= held.steps
        return usd, steps
