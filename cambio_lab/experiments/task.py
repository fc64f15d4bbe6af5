"""A task, and benchmarks of tasks: what the agent is told, how its desktop is prepared, and how the result is checked.

``setup`` and ``check`` are plain or async functions of one argument, the :class:`~cambio_lab.experiments.live.Live`
session. A plain function runs in a thread and is given the same object with blocking methods::

    def setup(live):
        live.write("notes.txt", "milk\\n")

    def check(live):
        return live.read("notes.txt") == "milk\\nbread\\n"

    Task("append", "Add a line that says bread to notes.txt in your home folder.", setup=setup, check=check)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, overload

from jinja2 import Environment

from ..errors import ConfigurationError
from ..recording.rows import counted
from .fingerprint import fingerprint

Message = str | Sequence[str] | Callable[[Any], str | Sequence[str]]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,79}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. ``score`` is 0 to 1; ``reason`` is for the reader of the table."""

    success: bool
    score: float
    reason: str = ""

    @classmethod
    def of(cls, value: object) -> Verdict:
        """A verdict, a ``bool`` or a score (success from 1.0 on); ``TypeError`` for anything else.

        ``None`` is refused on purpose: a check that forgot its ``return`` must not look like a failed run.
        """
        if isinstance(value, Verdict):
            return value
        if isinstance(value, bool):
            return cls(value, float(value))
        if isinstance(value, int | float) and 0 <= value <= 1:
            return cls(value >= 1, float(value))
        raise TypeError(f"a check must return True, False, a score from 0 to 1 or a Verdict, not {value!r}")


@dataclass(frozen=True)
class Task:
    """One thing to do, checkable.

    ``message`` is one message, several (sent one after another, each after the answer to the one before), or a
    function of the live session that returns them, for tasks whose ``setup`` draws something from ``live.random``.
    ``config`` is the configuration of the session (``max_steps``, ``max_cost_usd``, ``network``, ``image``, ...);
    ``timeout`` is the wall time in seconds for the whole run: start, setup, all turns and check.
    """

    name: str
    message: Message
    setup: Callable[[Any], Any] | None = None
    check: Callable[[Any], Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 900.0
    description: str = ""
    tags: tuple[str, ...] = ()
    """For filters and for the groups of a report, the most telling first."""
    answer: Callable[[Any, Any], Any] | None = None
    """Answers the agent in place of a person: a function of the live session and the question
    (:class:`~cambio_lab.events.QuestionAsked`), plain or async. With it, the agent may ask."""
    solution: Callable[[Any], Any] | None = None
    """A reference solution: a policy (:mod:`.policies`) that the ``oracle`` baseline and ``check_tasks`` follow."""

    demonstration: str | Path | None = None
    """A run file in which a person does the task (``lab.demonstrate``): what the ``human`` baseline does again."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"{self.name!r} is no name for a task.",
                hint="Use letters, digits, spaces and . _ + - (at most 80), beginning with a letter or digit.",
            )
        if self.timeout <= 0:
            raise ConfigurationError(f"Task {self.name!r} has no time: timeout is {self.timeout:g} s.")
        if not callable(self.message) and not self.texts(None):
            raise ConfigurationError(f"Task {self.name!r} says nothing: its message is empty.")

    def texts(self, live: Any) -> list[str]:
        """The messages of one run, in order."""
        message = self.message(live) if callable(self.message) else self.message
        texts = [message] if isinstance(message, str) else list(message)
        return [text for text in texts if text.strip()]

    def digest(self) -> str:
        """Return a fingerprint of what is asked and allowed, so that old results never count for a new question.

        It is the same in every process (it does not depend on the hash seed, on line numbers or on addresses) and
        covers what a function does: code, constants, defaults, closures, and the functions and constants that it
        uses of its own module.
        """
        return self._digest

    def demonstrated(self) -> str:
        """Return a fingerprint of the demonstration; empty where there is none."""
        return "" if self.demonstration is None else sha256(Path(self.demonstration).read_bytes()).hexdigest()

    @property
    def question(self) -> str:
        """A fingerprint of everything but the check: outcomes of the same question can be judged by another check."""
        return fingerprint([*self._asked, dict(self.config), self.timeout])

    @property
    def _asked(self) -> list[Any]:
        return [self.name, self.message, self.setup, *([] if self.answer is None else [self.answer])]

    @cached_property
    def _digest(self) -> str:
        # Once: what a closure holds may change while the task runs.
        return fingerprint([*self._asked, self.check, dict(self.config), self.timeout])


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


_ONE = Environment(autoescape=True).from_string(
    "<p><b>{{ benchmark.title }}</b> {{ benchmark.version }}, {{ benchmark.licence }}. {{ benchmark.metric }}"
    "<br>{{ benchmark.citation }} {{ benchmark.url }}</p>"
    "<ul>{% for line in benchmark.differences %}<li>{{ line }}{% endfor %}</ul>"
    "<table><tr><th>Task<th>Tags<th>What</tr>{% for task in tasks %}<tr><td>{{ task.name }}"
    "<td>{{ task.tags | join(', ') }}<td>{{ task.description }}</tr>{% endfor %}</table>"
)
