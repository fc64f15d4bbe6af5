"""Where attempts run: on this machine, or on the workers of a Dask cluster."""

from __future__ import annotations

import sys
from typing import Any

from ...errors import ConfigurationError
from ..ledger import Ledger
from .base import AttemptLost, Engine, Job, Plan

__all__ = ["AttemptLost", "Engine", "Job", "Plan", "choose", "recover"]


def choose(engine: Any) -> Engine:
    """An engine for what the user gave: ``None``, a ``dask.distributed.Client``, or an engine."""
    if engine is None:
        from .local import LocalEngine

        return LocalEngine()
    distributed = sys.modules.get("distributed")  # who holds a client has imported it
    if distributed is not None and isinstance(engine, distributed.Client):
        from .dask import DaskEngine

        return DaskEngine(engine)
    if isinstance(engine, Engine):
        return engine
    raise ConfigurationError(
        f"{type(engine).__name__} is no engine.", hint="Give a dask.distributed.Client, or None for this machine."
    )


async def recover(engine: Engine, ledger: Ledger) -> dict[str, str]:
    """Settle attempts that a killed process left: count what finished unseen, charge and reopen the rest.

    Returns the attempts that still run on a worker, by cell: they are gone on with.
    """
    running = await ledger.running()
    outcomes, alive = await engine.recover(running)
    for outcome in outcomes:
        await ledger.finish(outcome, final=outcome.failure != "infrastructure" and not outcome.fatal)
        await engine.settled(outcome)
    for attempt in running:  # no effect on those that were just finished
        if attempt.attempt not in alive:
            await ledger.lose(attempt.attempt, "the process that ran it died")
    return {attempt.cell_id: attempt.attempt for attempt in running if attempt.attempt in alive}
