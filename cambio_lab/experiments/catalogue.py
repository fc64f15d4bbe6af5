"""Benchmarks: named, versioned sources of tasks for :class:`~cambio_lab.experiments.experiment.Experiment`.

``Experiment(benchmark("miniwob"), models=[...])``. A package adds its own by an entry point of the group
``cambio_lab.benchmarks`` that names a :class:`.task.Benchmark`, or a function that returns one.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from typing import Any

from jinja2 import Environment

from ..errors import ConfigurationError
from .task import Benchmark, count_of

GROUP = "cambio_lab.benchmarks"


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
