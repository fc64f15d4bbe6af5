"""Experiments: task x model x setting x repeat, on this machine or on a cluster, with honest statistics.

Importing this costs little; pandas, matplotlib and distributed are imported on first use.

Benchmarks are named, versioned sources of tasks: ``Experiment(benchmark("miniwob"), models=[...])``. A package adds its
own by an entry point of the group ``cambio_lab.benchmarks`` that names a :class:`.task.Benchmark`, or a function that
returns one.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from ..errors import ConfigurationError
from .task import Benchmark as Benchmark
from .task import Task as Task
from .task import Verdict as Verdict
from .task import count_of

if TYPE_CHECKING:
    from .experiment import Experiment as Experiment
    from .live import Live as Live
    from .live import Observation as Observation
    from .live import action as action
    from .scheduler import ExperimentStopped as ExperimentStopped
    from .scheduler import Tally as Tally

GROUP = "cambio_lab.benchmarks"
_LATER = {
    "Observation": ".live",
    "action": ".live",
    "Experiment": ".experiment",
    "ExperimentStopped": ".scheduler",
    "Live": ".live",
    "Tally": ".scheduler",
}

__all__ = ["Benchmark", "Task", "Verdict", "benchmark", "benchmarks", *_LATER]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value


class Benchmarks(list[Benchmark]):
    """A table of benchmarks in a notebook, lines elsewhere."""

    def __repr__(self) -> str:
        return "\n".join(f"{one.name:16} {one.version:8} {count_of(one):12} {one.title}" for one in self)

    def _repr_html_(self) -> str:
        return _ALL.render(rows=[(one, count_of(one)) for one in self])


def benchmark(name: str, tasks: Iterable[str] | None = None, *, split: str | None = None) -> Benchmark:
    """Return a benchmark, or those of its ``tasks`` that are named. :class:`ConfigurationError` if it is unknown."""
    found = {one.name: one for one in benchmarks()}
    if name not in found:
        raise ConfigurationError(f"There is no benchmark {name!r}.", hint=f"There are {', '.join(found)}.")
    one = found[name]
    return one if tasks is None and split is None else one.filter(tasks, split=split)


def benchmarks() -> Benchmarks:
    """Return every benchmark: the package's own, and those of installed packages."""
    from . import miniwob, suite

    found = Benchmarks([suite.BENCHMARK, miniwob.BENCHMARK])
    for entry in importlib.metadata.entry_points(group=GROUP):
        made: Any = entry.load()
        one = made if isinstance(made, Benchmark) else made()
        if not isinstance(one, Benchmark) or one.name in {other.name for other in found}:
            raise ConfigurationError(f"The entry point {entry.name!r} of {GROUP} gives no benchmark of a new name.")
        found.append(one)
    return found


_ALL = Environment(autoescape=True).from_string(
    "<table><tr><th>Name<th>Version<th>Tasks<th>What<th>Needs<th>Licence</tr>{% for one, count in rows %}"
    "<tr><td>{{ one.name }}<td>{{ one.version }}<td>{{ count }}<td>{{ one.title }}<td>{{ one.needs }}"
    "<td>{{ one.licence }}</tr>{% endfor %}</table>"
)
