"""What one attempt at a cell left: small, JSON, and the same from every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ..events import Usage

Failure = Literal["agent", "limit", "infrastructure", "task"]
"""Whose failure it was.

``agent``: it ended its turn and the check says no, or the model refused. ``limit``: steps, money, tokens or time ran
out first. ``infrastructure``: desktop, engine, worker, network or model service; the only one that is tried again and
no evidence about the agent. ``task``: the author's ``setup`` or ``check`` raised; no evidence either.
"""
EVIDENCE: frozenset[str | None] = frozenset({None, "agent", "limit"})
"""The failures (and ``None``, none) that say something about the agent; rates are taken over these alone."""
NO_VERDICT: frozenset[str | None] = frozenset({"infrastructure", "task"})
"""The failures that say nothing about the agent; the next call of ``run`` runs their cells again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt. Times are seconds of wall clock, money US dollars.

    ``model_seconds`` is time spent waiting for the model, ``desktop_seconds`` for actions. ``bundle`` is the recorded
    run's file name, with its digest and size; empty when the attempt left none. ``fatal`` says that every other cell
    would fail the same way (no key, a refused model): the experiment stops instead of burning the grid.
    """

    attempt: str
    cell_id: str
    success: bool = False
    score: float = 0.0
    reason: str = ""
    failure: Failure | None = None
    error: str = ""
    fatal: bool = False
    answer: str = ""
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    wall_seconds: float = 0.0
    model_seconds: float = 0.0
    desktop_seconds: float = 0.0
    started_at: float = 0.0
    run_id: str = ""
    bundle: str = ""
    bundle_sha256: str = ""
    bundle_bytes: int = 0
    worker: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions and digests that could explain a difference: package, image, engine."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Outcome:
        return cls(**{**body, "usage": Usage(**body["usage"])})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running attempt is; ``thumbnail`` is a small JPEG of its desktop, when one was asked for."""

    attempt: str
    cell_id: str
    state: str = "starting"
    steps: int = 0
    cost_usd: float = 0.0
    thumbnail: bytes | None = None
