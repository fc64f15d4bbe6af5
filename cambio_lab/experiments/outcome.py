"""What one attempt at a cell left: small, JSON, and the same from every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ..errors import (
    ActionError,
    CambioError,
    CapacityReached,
    ConfigurationError,
    DesktopError,
    InvalidRequest,
    MissingKey,
    ModelError,
    ModelRefused,
    ModelRejected,
    StoreError,
    UnsupportedModel,
)
from ..events import TurnFailed, Usage

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
    human_steps: int = 0
    """Steps that a person did: with the ``human`` baseline those of the demonstration."""
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
    evidence: Mapping[str, Any] | None = None
    """What the check read, for :meth:`Experiment.rescore`."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Outcome:
        return cls(**{**body, "usage": Usage(**body["usage"])})


@dataclass(frozen=True, slots=True)
class Mark:
    """One cell of the grid on the wall. ``state``: ``open``, ``success``, ``failure``, or ``none`` (no verdict)."""

    id: str
    task: str
    column: str
    """Model, and setting where there are several."""
    state: str = "open"
    reason: str = ""
    run: str = ""
    """The name of its run file."""
    cost_usd: float = 0.0

    def ended(self, outcome: Outcome | None) -> Mark:
        """Return how the cell looks with this outcome."""
        if outcome is None:
            return self
        state = "none" if outcome.failure in NO_VERDICT else "success" if outcome.success else "failure"
        reason = (outcome.reason or outcome.error or outcome.failure or "")[:300]
        return replace(self, state=state, reason=reason, run=outcome.bundle, cost_usd=outcome.usage.cost_usd)


@dataclass(frozen=True, slots=True)
class AttemptProgress:
    """How far a running attempt is; ``thumbnail`` is a small JPEG of its desktop, when one was asked for."""

    attempt: str
    cell_id: str
    state: str = "starting"
    steps: int = 0
    cost_usd: float = 0.0
    thumbnail: bytes | None = None


Stage = Literal["start", "setup", "turn", "check"]
HOPELESS_STATUS = frozenset({401, 402, 403, 404})
"""Replies of the model service that every other cell would get as well: key, credit, permission, model name."""
_EVERYWHERE = (MissingKey, UnsupportedModel, ConfigurationError)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``fatal`` says that every other cell would fail the same way."""

    failure: Failure | None
    error: str
    fatal: bool = False


def judge_turn(end: TurnFailed | None, rejected: CambioError | None) -> Judgement:
    """A turn that ended badly. ``rejected`` is the client's last error that is not retried, with its status."""
    if end is None:
        return Judgement("infrastructure", "The turn was broken off.")
    error = end.details if end.error in end.details else f"{end.error} {end.details}".strip()
    if end.kind == ModelRefused.__name__:
        return Judgement("agent", error)
    everywhere = end.kind in {kind.__name__ for kind in _EVERYWHERE}
    if end.kind == ModelRejected.__name__ and rejected is not None:
        everywhere = rejected.details.get("status") in HOPELESS_STATUS
    return Judgement("infrastructure", error, everywhere)


def judge_exception(stage: Stage, error: BaseException) -> Judgement:
    """An exception outside a turn. An author's mistake is ``task``; it is not tried again."""
    if isinstance(error, CambioError):
        words = error.describe()
        if isinstance(error, CapacityReached):
            return Judgement("infrastructure", words)
        if stage == "start" and isinstance(error, (*_EVERYWHERE, InvalidRequest)):
            return Judgement("infrastructure", words, fatal=True)
        if isinstance(error, ActionError) and stage in ("setup", "check"):
            return Judgement("task", f"{stage}: {words}")
        if isinstance(error, DesktopError | StoreError | ModelError):
            return Judgement("infrastructure", words)
        return Judgement("task" if stage in ("setup", "check") else "infrastructure", f"{stage}: {words}")
    if isinstance(error, TimeoutError | OSError):
        return Judgement("infrastructure", f"{stage}: {type(error).__name__} {error}".strip())
    if stage in ("setup", "check", "turn"):  # in a turn only `message` is the author's, and only it gets here
        return Judgement("task", f"{stage}: {type(error).__name__}: {error}")
    return Judgement("infrastructure", f"{stage}: {type(error).__name__}: {error}")
