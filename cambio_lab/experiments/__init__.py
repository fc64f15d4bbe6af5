"""Experiments: task x model x setting x repeat, on this machine or on a cluster, with honest statistics.

Importing this costs little; pandas, matplotlib and distributed are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .task import Task as Task
from .task import Verdict as Verdict

if TYPE_CHECKING:
    from .catalogue import benchmark as benchmark
    from .catalogue import benchmarks as benchmarks
    from .experiment import Experiment as Experiment
    from .live import Live as Live
    from .policies import Observation as Observation
    from .policies import action as action
    from .scheduler import ExperimentStopped as ExperimentStopped
    from .scheduler import Tally as Tally
    from .task import Benchmark as Benchmark

_LATER = {
    "Benchmark": ".task",
    "Observation": ".policies",
    "action": ".policies",
    "benchmark": ".catalogue",
    "benchmarks": ".catalogue",
    "Experiment": ".experiment",
    "ExperimentStopped": ".scheduler",
    "Live": ".live",
    "Tally": ".scheduler",
}

__all__ = ["Task", "Verdict", *_LATER]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value
