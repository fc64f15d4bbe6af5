"""Recorded runs: read, show, export, replay, compare and fork them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .browser import Runs as Runs
    from .comparison import Comparison as Comparison
    from .comparison import compare as compare
    from .exporters.dataset import to_dataset as to_dataset
    from .run import Run as Run

_PLACES = {
    "Run": ".run",
    "Runs": ".browser",
    "compare": ".comparison",
    "Comparison": ".comparison",
    "to_dataset": ".exporters.dataset",
}
__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name], __name__), name)
    globals()[name] = value
    return value
