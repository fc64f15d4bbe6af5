"""A task, and its fingerprint: what the agent is told, how its desktop is prepared, and how the result is checked.

``setup`` and ``check`` are plain or async functions of one argument, the :class:`~cambio_lab.experiments.live.Live`
session. A plain function runs in a thread and is given the same object with blocking methods::

    def setup(live):
        live.write("notes.txt", "milk\\n")

    def check(live):
        return live.read("notes.txt") == "milk\\nbread\\n"

    Task("append", "Add a line that says bread to notes.txt in your home folder.", setup=setup, check=check)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

Message = str | Sequence[str] | Callable[[Any], str | Sequence[str]]
VERSION = "2"
"""Changes with this module: fingerprints of different versions are not comparable."""
PLAIN = (type(None), bool, int, float, complex, str, bytes)
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
    """A reference solution: a policy (:mod:`.live`) that the ``oracle`` baseline and ``check_tasks`` follow."""

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
        return "" if self.demonstration is None else hashlib.sha256(Path(self.demonstration).read_bytes()).hexdigest()

    @property
    def question(self) -> str:
        """A fingerprint of everything but the check: outcomes of the same question can be judged by another check."""
        return fingerprint([*self._asked, dict(self.config), self.timeout])

    @property
    def _asked(self) -> list[Any]:
        return [self.name, self.message, self.setup, *([] if self.answer is None else [self.answer])]

    @functools.cached_property
    def _digest(self) -> str:
        # Once: what a closure holds may change while the task runs.
        return fingerprint([*self._asked, self.check, dict(self.config), self.timeout])


def fingerprint(value: object) -> str:
    """Return 16 hexadecimal digits after the version, such as ``2-0123456789abcdef``; equal in every process.

    ``repr`` and pickles are not enough: the order of a set follows the process's hash seed, and the default ``repr`` of
    an object holds its address.
    """
    digest = hashlib.sha256("\0".join(_describe(value, ())).encode("utf-8", "surrogatepass"))
    return f"{VERSION}-{digest.hexdigest()[:16]}"


def comparable(first: str, second: str) -> bool:
    """Return whether both fingerprints were made by the same version of this module."""
    return first.partition("-")[0] == second.partition("-")[0]


def _describe(value: Any, outer: tuple[int, ...]) -> Iterator[str]:
    """Yield ``value`` piece by piece; ``outer`` holds the ids of the objects that contain it."""
    yield type(value).__qualname__
    if isinstance(value, PLAIN):
        yield repr(value)
    elif id(value) in outer:
        yield f"cycle {len(outer) - outer.index(id(value))}"
    else:
        yield from _parts(value, (*outer, id(value)))


def _parts(value: Any, outer: tuple[int, ...]) -> Iterator[str]:
    if isinstance(value, types.FunctionType):
        yield from _function(value, outer)
    elif isinstance(value, types.CodeType):
        yield from _code(value, outer)
    elif isinstance(value, functools.partial):
        yield from _each((value.func, value.args, value.keywords), outer)
    elif isinstance(value, types.MethodType):
        yield from _each((value.__func__, value.__self__), outer)
    elif isinstance(value, Set):
        yield from sorted("\0".join(_describe(item, outer)) for item in value)
    elif isinstance(value, Mapping):
        yield from sorted("\0".join(_each(pair, outer)) for pair in value.items())
    elif isinstance(value, Sequence):
        yield from _each(value, outer)
    elif isinstance(value, type):
        yield from _class(value, outer)
    elif isinstance(value, types.ModuleType | types.BuiltinFunctionType):
        yield value.__name__
    else:
        yield from _class(type(value), outer)
        yield from _each((_state(value),), outer)


def _each(values: Any, outer: tuple[int, ...]) -> Iterator[str]:
    for value in values:
        yield from _describe(value, outer)


def _function(function: types.FunctionType, outer: tuple[int, ...]) -> Iterator[str]:
    yield from _code(function.__code__, outer)
    yield from _each((function.__defaults__, function.__kwdefaults__), outer)
    for cell in function.__closure__ or ():
        try:
            yield from _describe(cell.cell_contents, outer)
        except ValueError:
            yield "empty cell"
    for name in sorted(_names(function.__code__)):
        used = function.__globals__.get(name)
        own = isinstance(used, types.FunctionType | type) and used.__module__ == function.__module__
        if own or (isinstance(used, (*PLAIN, tuple, frozenset)) and used is not None):
            yield name
            yield from _describe(used, outer)


def _names(code: types.CodeType) -> set[str]:
    """Return the global names of a function and of the functions that it defines."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _code(code: types.CodeType, outer: tuple[int, ...]) -> Iterator[str]:
    """Describe what the code does; its name, file and lines are left out."""
    yield code.co_code.hex()
    yield from _each((code.co_names, code.co_varnames, code.co_consts), outer)


def _class(kind: type, outer: tuple[int, ...]) -> Iterator[str]:
    yield f"{kind.__module__}.{kind.__qualname__}"
    for name, member in sorted(vars(kind).items()):
        if isinstance(member, types.FunctionType | staticmethod | classmethod | property):
            inner = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            yield name
            if isinstance(inner, types.FunctionType):
                yield from _describe(inner, outer)


def _state(value: object) -> object:
    """Return the fields of a dataclass, or of an object that is itself the check; other objects count by their class.

    A captured object (a client, a lock) may hold ports, times and connections, which differ in every process.
    """
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(vars(value)) if callable(value) and hasattr(value, "__dict__") else None
