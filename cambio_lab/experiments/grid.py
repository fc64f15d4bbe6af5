"""The grid: task x model x setting x repeat, each cell with a stable name and a seed of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import FunctionType
from typing import Any

from .. import settings
from ..agent.models import DEMO
from ..errors import ConfigurationError
from ..recording.rows import counted
from .live import BASELINES, Policy, human_policy
from .task import Task, fingerprint

Settings = Mapping[str, Mapping[str, Any]]
"""Name of a setting -> what it changes in the session's configuration."""
Models = Mapping[str, str | Policy]
"""Name of a column -> model or policy."""


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
    policy: Policy | None = None
    """What acts in the model's place; ``model`` is its name then."""

    @property
    def cell_id(self) -> str:
        return cell_id(self.task.name, self.model, self.setting, self.repeat)


def cell_id(task: str, model: str, setting: str, repeat: int) -> str:
    """Return what a cell is called everywhere."""
    return "/".join((task, model, setting, str(repeat)))


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


def name_models(models: Sequence[str | Policy] | Models) -> dict[str, str | Policy]:
    """Models by the name of their column. A function is named after itself; :data:`BASELINES` have names.

    Give a mapping to name them otherwise. :class:`ConfigurationError` when two have the same name.
    """
    pairs = list(models.items()) if isinstance(models, Mapping) else [(_name(model), model) for model in models]
    _refuse_twice("models", [name for name, _ in pairs])
    return {name: BASELINES.get(model, model) if isinstance(model, str) else model for name, model in pairs}


def _name(model: str | Policy) -> str:
    if isinstance(model, str):
        return model
    known = next((name for name, policy in BASELINES.items() if policy is model), None)
    return known or (model.__name__ if isinstance(model, FunctionType) else type(model).__name__)


def _refuse_twice(kind: str, names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"Two {kind} have the same name: {', '.join(twice)}.")


@dataclass(frozen=True, repr=False)
class Grid:
    """Every cell of an experiment, in an order that shows all of the grid early: repeats are the outermost."""

    tasks: Sequence[Task]
    models: Models
    settings: Settings
    repeats: int
    seed: int
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or not self.models:
            raise ConfigurationError(f"An experiment needs {'models' if names else 'tasks'}.")
        _refuse_twice("tasks", names)
        if self.repeats < 1:
            raise ConfigurationError(f"repeats is {self.repeats}: it must be at least 1.")

    def __repr__(self) -> str:
        sizes = {"task": self.tasks, "model": self.models, "setting": self.settings, "repeat": range(self.repeats)}
        return " × ".join(counted(len(found), name) for name, found in sizes.items())

    def __len__(self) -> int:
        return len(self.tasks) * len(self.models) * len(self.settings) * self.repeats

    def __iter__(self) -> Iterator[Cell]:
        digests = {task.name: task.digest() for task in self.tasks}
        for repeat in range(self.repeats):
            for task in self.tasks:
                seed = self._seed(task, repeat)
                for name, model in self.models.items():
                    policy = None if isinstance(model, str) else model
                    for setting, changes in self.settings.items():
                        asks = {"ask_user": True} if task.answer else {}
                        config = {**asks, **self.config, **task.config, **changes, "model": DEMO if policy else model}
                        asked = [digests[task.name], config, *([policy] if policy else [])]
                        asked += [task.demonstrated()] if policy is human_policy else []
                        yield Cell(task, name, setting, repeat, seed, config, fingerprint(asked), policy)

    @property
    def model_ids(self) -> list[str]:
        """The models that are asked, without repetition; a policy needs no key, as the demo model."""
        return list(dict.fromkeys(model if isinstance(model, str) else DEMO for model in self.models.values()))

    def _seed(self, task: Task, repeat: int) -> int:
        """The same for every model and setting: they are compared on the same draws of the task."""
        drawn = hashlib.sha256(f"{self.seed}\0{task.name}\0{repeat}".encode()).digest()
        return int.from_bytes(drawn[:6], "big")


def lab_settings(changes: Mapping[str, Any]) -> settings.Settings:
    """Return the settings of an experiment's runs; a name that is none is refused."""
    known = {item.name for item in fields(settings.Settings)}
    if unknown := sorted(changes.keys() - known):
        raise ConfigurationError(f"There is no setting {', '.join(unknown)}.", hint="See docs/settings.md.")
    return settings.resolve(changes)
