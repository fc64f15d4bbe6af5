"""What one turn may use: steps, tokens, money, time. Reaching a limit is a clean end, never an error."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from ..events import Usage
from .gate import Gate, LimitReached
from .options import AgentOptions


@dataclass
class Limits:
    """One turn's meter. ``spent`` is what the session had used before this turn."""

    options: AgentOptions
    spent: Usage
    used: Usage = Usage()
    steps: int = 0
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._alarm: asyncio.TimerHandle | None = None

    def arm(self, gate: Gate) -> None:
        """Halt the turn when its wall time is over."""
        seconds = self.options.max_turn_seconds
        if seconds:
            reason = LimitReached("max_seconds", f"The turn's time limit of {seconds:g} seconds was reached.")
            self._alarm = asyncio.get_running_loop().call_later(seconds, gate.halt, reason)

    def disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    @property
    def elapsed(self) -> float:
        """Seconds since the turn began."""
        return time.monotonic() - self.started

    @property
    def total(self) -> Usage:
        """The whole session's usage, this turn included."""
        return self.spent + self.used

    def before_request(self) -> None:
        """Raise :class:`LimitReached` when another request would go beyond tokens or money."""
        money, tokens = self.options.max_cost_usd, self.options.max_turn_tokens
        if money and self.total.cost_usd >= money:
            raise LimitReached(
                "max_cost_usd", f"The session has spent ${self.total.cost_usd:.2f} of the ${money:.2f} it may spend."
            )
        if tokens and self.tokens >= tokens:
            raise LimitReached("max_tokens", f"The turn has used {self.tokens} of the {tokens} tokens it may use.")
        self.before_step()

    def before_step(self) -> None:
        """Raise :class:`LimitReached` when the turn has made all the tool calls it may make."""
        steps = self.options.max_steps
        if steps and self.steps >= steps:
            raise LimitReached("max_steps", f"The turn has made the {steps} tool calls it may make.")

    @property
    def tokens(self) -> int:
        """Input and output tokens of this turn, cached ones included."""
        used = self.used
        return used.input_tokens + used.output_tokens + used.cache_creation_input_tokens + used.cache_read_input_tokens
