"""What an engine is to the scheduler: a place where attempts run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ...errors import CambioError, ConfigurationError
from ...settings import Settings
from ...store import Store
from ..grid import Cell
from ..outcome import AttemptProgress, Outcome


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
