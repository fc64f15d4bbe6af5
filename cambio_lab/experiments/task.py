"""A task: what the agent is told, how its desktop is prepared, and how the result is checked.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import ConfigurationError
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
