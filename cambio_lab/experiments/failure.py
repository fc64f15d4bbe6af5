"""Whose fault was it? One table for turns that failed and one for exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
from ..events import TurnFailed
from .outcome import Failure

Stage = Literal["start", "setup", "turn", "check"]
HOPELESS_STATUS = frozenset({401, 402, 403, 404})
"""Replies of the model service that every other cell would get as well: key, credit, permission, model name."""
_EVERYWHERE = (MissingKey, UnsupportedModel, ConfigurationError)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``fatal`` says that every other cell would fail the same way."""

    failure: Failure
    error: str
    fatal: bool = False


def of_turn(end: TurnFailed | None, rejected: CambioError | None) -> Judgement:
    """A turn that ended badly. ``rejected`` is the client's last error that no retry mends, with its status."""
    if end is None:
        return Judgement("infrastructure", "The turn was broken off.")
    error = end.details if end.error in end.details else f"{end.error} {end.details}".strip()
    if end.kind == ModelRefused.__name__:
        return Judgement("agent", error)
    everywhere = end.kind in {kind.__name__ for kind in _EVERYWHERE}
    if end.kind == ModelRejected.__name__ and rejected is not None:
        everywhere = rejected.details.get("status") in HOPELESS_STATUS
    return Judgement("infrastructure", error, everywhere)


def of_exception(stage: Stage, error: BaseException) -> Judgement:
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
