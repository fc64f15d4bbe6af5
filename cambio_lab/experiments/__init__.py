"""Experiments: task x model x setting x repeat, on this machine or on a cluster, with honest statistics.

Importing this costs little; pandas, matplotlib and distributed are imported on first use.

Benchmarks are named, versioned sources of tasks: ``Experiment(benchmark("miniwob"), models=[...])``. A package adds its
own by an entry point of the group ``cambio_lab.benchmarks`` that names a :class:`Benchmark`, or a function that
returns one.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, overload

from jinja2 import Environment

from ..errors import ConfigurationError
from ..recording.rows import counted
from .task import Task as Task
from .task import Verdict as Verdict

if TYPE_CHECKING:
    from .experiment import Experiment as Experiment
    from .live import Live as Live
    from .live import Observation as Observation
    from .live import action as action
    from .scheduler import ExperimentStopped as ExperimentStopped
    from .scheduler import Tally as Tally

GROUP = "cambio_lab.benchmarks"
_OURS = [importlib.metadata.EntryPoint(name, f"{__name__}.{name}:BENCHMARK", GROUP) for name in ("suite", "miniwob")]
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


@dataclass(frozen=True, slots=True)
class Published:
    """A result that others published; ``rate`` is a share from 0 to 1."""

    system: str
    rate: float | None
    source: str
    remark: str = ""


@dataclass(frozen=True)
class Benchmark(Sequence[Task]):
    """Tasks with what a reader of a score must know. Loaded when they are first asked for.

    ``metric`` is the authors' own definition, ``differences`` is everything in which this harness is not theirs.
    ``needs`` says how to get what it runs on (extra, image, data).
    """

    name: str
    title: str
    version: str
    load: Callable[[str], Sequence[Task]]
    """Makes the tasks of a split."""
    metric: str
    licence: str
    citation: str
    url: str = ""
    needs: str = "nothing"
    seeds: str = "One for each task and repeat, drawn from the experiment's seed; the same for every model."
    splits: tuple[str, ...] = ("all",)
    split: str = ""
    published: tuple[Published, ...] = ()
    differences: tuple[str, ...] = ()
    names: frozenset[str] | None = None
    """The tasks that :meth:`filter` kept; ``None`` is all."""

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """:class:`ConfigurationError` says how to get what is missing."""
        tasks = tuple(self.load(self.split or self.splits[0]))
        return tasks if self.names is None else tuple(task for task in tasks if task.name in self.names)

    @property
    def tags(self) -> list[str]:
        return sorted({tag for task in self.tasks for tag in task.tags})

    def filter(
        self, names: Iterable[str] | None = None, *, tags: Iterable[str] | None = None, split: str | None = None
    ) -> Benchmark:
        """Keep the tasks that are named and have one of ``tags``, of one split; nothing given keeps all.

        Raises :class:`ConfigurationError` for a task, tag or split that does not exist.
        """
        if split is not None and split not in self.splits:
            raise ConfigurationError(f"{self.name} has no split {split!r}.", hint=f"It has {', '.join(self.splits)}.")
        chosen = replace(self, split=split or self.split)
        wanted = None if names is None else frozenset(names)
        groups = None if tags is None else frozenset(tags)
        known = {task.name for task in chosen.tasks}
        if unknown := sorted((wanted or frozenset()) - known) + sorted((groups or frozenset()) - set(chosen.tags)):
            raise ConfigurationError(f"{self.name} has no {', '.join(unknown)}.", hint=f"See benchmark({self.name!r}).")
        kept = [
            task.name
            for task in chosen.tasks
            if (wanted is None or task.name in wanted) and (groups is None or groups & set(task.tags))
        ]
        return replace(chosen, names=frozenset(kept))

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        return self.tasks[index]

    def __repr__(self) -> str:
        return f"<Benchmark {self.name} {self.version}: {count_of(self)}, licence {self.licence}>"

    def _repr_html_(self) -> str:
        return _ONE.render(benchmark=self, tasks=self.tasks)


def count_of(one: Benchmark) -> str:
    """How many tasks it has, or that they are not installed."""
    try:
        return counted(len(one), "task")
    except ConfigurationError:
        return "not installed"


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
    found = Benchmarks()
    for entry in (*_OURS, *importlib.metadata.entry_points(group=GROUP)):
        made: Any = entry.load()
        one = made if isinstance(made, Benchmark) else made()
        if not isinstance(one, Benchmark) or one.name in {other.name for other in found}:
            raise ConfigurationError(f"The entry point {entry.name!r} of {GROUP} gives no benchmark of a new name.")
        found.append(one)
    return found


_ONE = Environment(autoescape=True).from_string(
    "<p><b>{{ benchmark.title }}</b> {{ benchmark.version }}, {{ benchmark.licence }}. {{ benchmark.metric }}"
    "<br>{{ benchmark.citation }} {{ benchmark.url }}</p>"
    "<ul>{% for line in benchmark.differences %}<li>{{ line }}{% endfor %}</ul>"
    "<table><tr><th>Task<th>Tags<th>What</tr>{% for task in tasks %}<tr><td>{{ task.name }}"
    "<td>{{ task.tags | join(', ') }}<td>{{ task.description }}</tr>{% endfor %}</table>"
)
_ALL = Environment(autoescape=True).from_string(
    "<table><tr><th>Name<th>Version<th>Tasks<th>What<th>Needs<th>Licence</tr>{% for one, count in rows %}"
    "<tr><td>{{ one.name }}<td>{{ one.version }}<td>{{ count }}<td>{{ one.title }}<td>{{ one.needs }}"
    "<td>{{ one.licence }}</tr>{% endfor %}</table>"
)
