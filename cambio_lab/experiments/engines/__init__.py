"""Where attempts run: on this machine, or on the workers of a Dask cluster."""

from __future__ import annotations

import sys
from typing import Any

from ...errors import ConfigurationError
from .base import AttemptLost, Engine, Job, Plan

__all__ = ["AttemptLost", "Engine", "Job", "Plan", "choose"]


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
