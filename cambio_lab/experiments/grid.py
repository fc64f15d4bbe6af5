"""The grid: task x model x setting x repeat, each cell with a stable name and a seed of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigurationError
from .fingerprint import fingerprint
from .task import Task

Settings = Mapping[str, Mapping[str, Any]]
"""Name of a setting -> what it changes in the session's configuration."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the grid. ``cell_id`` is the same in every process that builds the same grid."""

    task: Task
    model: str
    setting: str
    repeat: int
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)
    """The whole configuration of the session: the experiment's, the task's and the setting's, the strongest last."""
    digest: str = ""

    @property
    def cell_id(self) -> str:
        return "/".join((self.task.name, self.model, self.setting, str(self.repeat)))


def name_settings(settings: Sequence[Mapping[str, Any]] | Settings | None) -> dict[str, dict[str, Any]]:
    """Settings by name; those in a list are named after what they set (``effort=low``), the empty one ``default``."""
    if not settings:
        return {"default": {}}
    if isinstance(settings, Mapping):
        return {name: dict(changes) for name, changes in settings.items()}
    named: dict[str, dict[str, Any]] = {}
    for changes in settings:
        name = ", ".join(f"{key}={value}" for key, value in sorted(changes.items())) or "default"
        if name in named:
            raise ConfigurationError(f"Two settings are the same: {name}.", hint="Name them: settings={'a': {...}}.")
        named[name] = dict(changes)
    return named


@dataclass(frozen=True)
class Grid:
    """Every cell of an experiment, in an order that shows all of the grid early: repeats are the outermost."""

    tasks: Sequence[Task]
    models: Sequence[str]
    settings: Settings
    repeats: int
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, names in (("tasks", [task.name for task in self.tasks]), ("models", list(self.models))):
            if not names:
                raise ConfigurationError(f"An experiment needs {what}.")
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ConfigurationError(f"Two {what} have the same name: {', '.join(twice)}.")
        if self.repeats < 1:
            raise ConfigurationError(f"repeats is {self.repeats}: it must be at least 1.")

    def __len__(self) -> int:
        return len(self.tasks) * len(self.models) * len(self.settings) * self.repeats

    def __iter__(self) -> Iterator[Cell]:
        digests = {task.name: task.digest() for task in self.tasks}
        for repeat in range(self.repeats):
            for task in self.tasks:
                seed = self._seed(task, repeat)
                for model in self.models:
                    for setting, changes in self.settings.items():
                        config = {**self.config, **task.config, **changes, "model": model}
                        digest = fingerprint([digests[task.name], config])
                        yield Cell(task, model, setting, repeat, seed, config, digest)

    def _seed(self, task: Task, repeat: int) -> int:
        """The same for every model and setting: they are compared on the same draws of the task."""
        drawn = hashlib.sha256(f"{self.seed}\0{task.name}\0{repeat}".encode()).digest()
        return int.from_bytes(drawn[:6], "big")
