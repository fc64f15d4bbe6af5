"""What an engine is, a place where attempts run: what it is given (plan, jobs) and what it gives back (outcomes)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

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
from ..settings import Settings
from ..store import Store
from .grid import Cell


class AttemptLost(CambioError):
    """An attempt is gone without a result: its process, worker or connection died. Infrastructure, to be retried."""


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt to run. ``config`` is the session's, with the attempt's allowance of money in it.

    ``steps`` is the allowance of tool calls for all turns together, 0 for none. ``short`` says that the allowance is
    what was left of the experiment's cap and less than the cell's own limit: reaching it says nothing about the agent.
    """

    attempt: str
    cell: Cell
    config: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    short: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What an engine needs to know before the first attempt. Carries no secret: it may travel to workers."""

    experiment_id: str
    """Random, made once per experiment: names its containers and its files on workers."""
    directory: Path
    """The experiment's folder here; recorded runs go to ``runs`` in it."""
    settings: Settings
    lab: Mapping[str, Any] = field(default_factory=dict)
    """What the experiment changes of a process's own settings, for workers elsewhere."""
    store: Store | None = None
    """The experiment's store, open in this process."""
    models: Sequence[str] = ()
    wanted: int | None = None
    """The user's ``concurrency``; ``None`` leaves it to the engine."""
    make_provider: Any = None
    """Other desktops than the package's: ``await make(settings, server_id=..., kind=...)`` gives a provider."""


@runtime_checkable
class Engine(Protocol):
    """Runs attempts. All methods belong to the event loop that called :meth:`start`."""

    name: str

    async def start(self, plan: Plan) -> None:
        """Check what is needed and get ready. :class:`~cambio_lab.errors.ConfigurationError` says what is missing."""

    async def slots(self) -> int:
        """How many attempts may be handed over at once, now; may grow and shrink."""

    async def recover(self, attempts: Sequence[AttemptProgress]) -> tuple[list[Outcome], set[str]]:
        """Return results of attempts that ended while no driver was connected, and the attempts that still run.

        :meth:`run` with one of the latter continues it instead of starting it again.
        """

    async def run(self, job: Job) -> Outcome:
        """One attempt from start to its bundle in the plan's ``runs`` folder.

        Raises :class:`AttemptLost`. Cancelling it ends the attempt's session and desktop.
        """

    async def settled(self, outcome: Outcome) -> None:
        """The ledger has the outcome: whatever was kept for it may go."""

    async def progress(self, *, thumbnails: bool) -> list[AttemptProgress]:
        """How far each running attempt is."""

    async def stop(self) -> None:
        """End everything that still runs; leave no desktop behind. Idempotent."""


SECRETS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
SHORTEST = 8
"""Bytes; a shorter value would be found by accident."""


def refuse_secrets(payload: bytes) -> None:
    """:class:`ConfigurationError` when a secret of this process's environment is in what would pass the scheduler."""
    for name in SECRETS:
        secret = os.environ.get(name, "").encode()
        if len(secret) >= SHORTEST and secret in payload:
            raise ConfigurationError(
                f"A task, its check or the experiment's settings contain the value of {name}.",
                hint="Workers read it from their own environment or secret file; take it out.",
            )


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
