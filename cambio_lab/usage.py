"""What a turn takes: tokens and money, the time of its calls and where they acted."""

from __future__ import annotations

import math
import operator
import time
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from typing import Any

MAX_TOKENS = 1_000_000_000  # no count of one reply is larger


def timestamp(seconds: float | None = None) -> str:
    """Return UTC, ``2024-01-15T10:30:00Z``; now unless ``seconds`` since the epoch are given."""
    return datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration(milliseconds: float) -> str:
    """``84 ms``, ``11.7 s``, ``2 min 5 s``."""
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = round(milliseconds / 1000, 1)
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds + 0.5) // 60} min {int(seconds + 0.5) % 60} s"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by kind and what they cost. Adds up with ``+``."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    thinking_tokens: int = 0
    requests: int = 0
    cost_usd: float = 0.0

    def describe(self) -> dict[str, Any]:
        """Return tokens by kind, requests and ``cost_usd``, as messages and rows carry them."""
        return {**asdict(self), "cost_usd": round(self.cost_usd, 6)}

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of one tool call went, in milliseconds.

    ``action`` is the input or command itself, ``settle`` the wait for the screen to become quiet, ``encode`` the
    screenshot's encoding, ``total`` everything from the call's start to its result.
    """

    action: float = 0.0
    settle: float = 0.0
    encode: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Box:
    """An element, in pixels of its page's viewport, which begins at ``page_left``, ``page_top`` of the screen."""

    left: int
    top: int
    right: int
    bottom: int
    page_left: int = 0
    page_top: int = 0


def plausible(value: Any) -> Any:
    """Return what can be a count or a name, without the rest: a negative count would lower what was spent."""
    if isinstance(value, dict):
        kept = {str(key): plausible(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner is not None}
    if isinstance(value, list):
        return [plausible(inner) for inner in value if isinstance(inner, dict)]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS:
        return math.ceil(value)
    return value if isinstance(value, str) else None
