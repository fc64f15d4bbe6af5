"""The session's state machine: which phases follow which. Everything else is refused."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where a session is in its life. What people are shown (``thinking``, ``acting``...) is finer."""

    READY = "ready"
    WORKING = "working"
    STOPPING = "stopping"
    ENDING = "ending"
    ENDED = "ended"


LEGAL: dict[Phase, frozenset[Phase]] = {
    Phase.READY: frozenset({Phase.WORKING, Phase.ENDING}),
    Phase.WORKING: frozenset({Phase.READY, Phase.STOPPING, Phase.ENDING}),
    Phase.STOPPING: frozenset({Phase.READY, Phase.ENDING}),
    Phase.ENDING: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
}


class IllegalTransition(RuntimeError):
    """A mistake in this package: callers are refused before it can happen."""


class Life:
    """The current phase."""

    def __init__(self) -> None:
        self.phase = Phase.READY

    def move(self, to: Phase) -> None:
        if to not in LEGAL[self.phase]:
            raise IllegalTransition(f"{self.phase.value} -> {to.value}")
        self.phase = to

    @property
    def over(self) -> bool:
        return self.phase in (Phase.ENDING, Phase.ENDED)

    @property
    def working(self) -> bool:
        return self.phase in (Phase.WORKING, Phase.STOPPING)
