"""Caps on the whole experiment: money, steps, time. They hold for every engine.

A cell starts only with an allowance set aside for it, so that cells running at once cannot together pass the cap; the
allowance becomes its session's own limit. What it did not use comes back when it ends.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

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
