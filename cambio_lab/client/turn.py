"""What came of one message: text, steps, usage, cost. Built up from the socket's messages as they arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import CambioError
from .display import clip, describe
from .message import Message
from .rest import from_event
from .screenshot import Screenshot


@dataclass
class Step:
    """One tool call. ``status`` is ``announced``, ``waiting``, ``started``, ``completed``, ``failed``, ``denied``,
    ``skipped`` (never ran) or ``interrupted``."""

    number: int
    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    status: str = "started"
    text: str = ""
    timing: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds: ``action_ms``, ``settle_ms``, ``encode_ms``, ``total_ms``."""
    image_path: str = ""
    dimensions: str = ""
    tool_use_id: str = field(default="", repr=False)
    human: bool = False
    """A person did it with mouse or keyboard."""
    screenshot: Screenshot | None = field(default=None, repr=False)
    """The screen after the step, reduced for display; the full one is at ``image_path``."""

    @property
    def ok(self) -> bool:
        return self.status == "completed"

    @property
    def summary(self) -> str:
        """``left_click (412, 300)``."""
        return ("a person: " if self.human else "") + describe(self.tool, self.arguments)


@dataclass
class Turn:
    """A finished (or running) turn. ``str(turn)`` is the agent's final text."""

    message: str
    session_id: str = ""
    session_name: str = ""
    message_id: str = ""
    text: str = ""
    items: list[str | Step] = field(default_factory=list, repr=False)
    """What was said and done, in order."""
    usage: dict[str, Any] = field(default_factory=dict)
    """Tokens by kind and ``cost_usd``, of this turn."""
    seconds: float = 0.0
    tool_calls: list[str] = field(default_factory=list)
    stopped: bool = False
    limit: str | None = None
    needs_input: bool = False
    answer: Any = None
    """The final text as a value, of a message that came with a schema; see :meth:`Session.ask`."""
    error: CambioError | None = None
    done: bool = False
    screenshot: Screenshot | None = field(default=None, repr=False)
    """The desktop at the end of the turn, full size."""

    @property
    def steps(self) -> list[Step]:
        return [item for item in self.items if isinstance(item, Step)]

    @property
    def cost_usd(self) -> float:
        """What the turn cost, in US dollars."""
        return float(self.usage.get("cost_usd") or 0.0)

    @property
    def outcome(self) -> str:
        """How it stands in a few words: ``3 steps, 4.2 s, $0.01``."""
        count = len(self.steps)
        parts = {
            f"{count} step{'' if count == 1 else 's'}": True,
            f"{self.seconds:.1f} s": True,
            f"${self.cost_usd:.{4 if self.cost_usd < 0.1 else 2}f}": bool(self.cost_usd),
            "stopped": self.stopped,
            f"limit reached: {self.limit}": bool(self.limit),
            "failed": self.error is not None,
            "running": not self.done,
        }
        return ", ".join(part for part, shown in parts.items() if shown)

    def transcript(self) -> Iterator[str]:
        """Lines of plain text: the message, what was said and done, how it ended."""
        yield f"You: {self.message}"
        for item in self.items:
            if isinstance(item, Step):
                suffix = "" if item.ok else f"  [{item.status}]"
                yield f"  {item.number}. {item.summary}{suffix}"
            else:
                yield f"Agent: {item}"
        if self.error is not None:
            yield f"Error: {self.error.describe()}"
        yield f"({self.outcome})"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Turn({self.outcome}: {clip(self.text, 200)!r})"


class Observer(Protocol):
    """Told of what this object does, to keep an output of a notebook up to date. Called from the caller's side."""

    async def turn_ended(self, turn: Turn | None) -> None: ...
    async def ending(self) -> None: ...
    async def close(self) -> None: ...


def _stopped_line(error: BaseException) -> list[str]:
    return [f"{error}\n"]


class TurnCancelled(asyncio.CancelledError):
    """The cell or task that waited for a turn was cancelled, and the turn was stopped. A notebook shows one line."""

    _render_traceback_ = _stopped_line


class TurnInterrupted(KeyboardInterrupt):
    """Ctrl+C stopped the turn. A notebook shows one line."""

    _render_traceback_ = _stopped_line


def thin(steps: Sequence[Step], most: int) -> list[Step]:
    """Return at most ``most`` of ``steps``, evenly spread, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    if most < 2:
        return list(steps[-1:]) if most == 1 else []
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


class TurnBuilder:
    """Feeds messages into a :class:`Turn`. ``feed`` says whether something worth showing changed."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.activity = "sending"
        """What is going on now, for a progress line."""
        self.thinking = ""
        self._started = time.monotonic()
        self._calls: dict[str, Step] = {}
        self._fresh = True  # the next piece of text begins a new item
        self._begin = 0  # where in ``items`` the reply begins that is being written

    def feed(self, message: Message) -> bool:
        self.tick()
        handler = getattr(self, f"_{message.type}", None)
        return bool(handler is not None and handler(message))

    def tick(self) -> None:
        """Bring the seconds of a running turn up to date."""
        if not self.turn.done:
            self.turn.seconds = time.monotonic() - self._started

    def _connection(self, message: Message) -> bool:
        self.activity = message.content
        return True

    def _agent_delta(self, message: Message) -> bool:
        kind = message.metadata.get("kind", "text")
        if kind == "announce":
            self.activity = f"about to use {message.tool}"
            self._fresh = True
        elif kind == "thinking":
            self.thinking = (self.thinking + message.content)[-2000:]
            self.activity = "thinking"
        else:
            self._append(message.content)
            self.activity = "answering"
        return True

    def _append(self, text: str) -> None:
        items = self.turn.items
        if self._fresh or not items or isinstance(items[-1], Step):
            items.append(text)
            self._fresh = False
        else:
            items[-1] += text

    def _replied(self, text: str) -> None:
        """Tell what a reply said, in place of those of its pieces that came."""
        items = self.turn.items
        steps = [item for item in items[self._begin :] if isinstance(item, Step)]
        items[self._begin :] = [*steps, text] if text else steps
        self._begin, self._fresh = len(items), True

    def _status(self, message: Message) -> bool:
        if message.event == "user_message":
            self.turn.message_id = str(message.metadata.get("message_id", ""))
            return False
        self.activity = message.content or message.status.replace("_", " ")
        if message.event == "approval":
            self.activity = f"waiting for approval: {self._step(message, 'waiting').summary}"
        elif message.event == "question":
            self._step(message, "waiting")
            self.activity = f"waiting for an answer: {clip(str(message.metadata.get('question', '')))}"
        elif message.event == "usage":
            self._replied(str(message.metadata.get("said") or ""))
        elif message.event == "retry":
            self._replied("")  # a reply that broke off is begun again
            self.thinking = ""
        elif message.event == "approval_decided" and message.metadata.get("verdict") not in ("approved", None):
            call = self._calls.get(str(message.metadata.get("tool_use_id", "")))
            if call is not None:
                call.status = "denied"
        return True

    def _tool_execution(self, message: Message) -> bool:
        step = self._step(message, message.status)
        if not step.human:
            self._begin, self._fresh = len(self.turn.items), True
        result = message.result
        step.text = str(result.get("text") or step.text)
        step.image_path = str(result.get("image_path") or step.image_path)
        step.dimensions = str(result.get("dimensions") or step.dimensions)
        timing = result.get("timing")
        step.timing = timing if isinstance(timing, Mapping) else step.timing
        self.activity = step.summary
        return True

    def _step(self, message: Message, status: str) -> Step:
        source = message.raw if message.type == "tool_execution" else message.metadata
        key = str(source.get("tool_use_id") or f"step {source.get('step')}")
        number = source.get("step")
        step = self._calls.get(key)
        if step is None:
            step = self._calls[key] = Step(0, "", tool_use_id=key)
            self.turn.items.append(step)
        step.number = number if isinstance(number, int) else step.number or len(self._calls)
        step.tool = str(source.get("tool") or step.tool)
        step.human = message.metadata.get("actor") == "human"
        arguments = source.get("arguments")
        step.arguments = arguments if isinstance(arguments, Mapping) else step.arguments
        if status == "failed" and (step.status == "denied" or message.metadata.get("denied") is True):
            status = "denied"
        step.status = str(message.metadata.get("ended") or status) if status == "failed" else status
        return step

    def _agent_response(self, message: Message) -> bool:
        turn, metadata = self.turn, message.metadata
        turn.text = message.content
        turn.tool_calls = [str(name) for name in metadata.get("tool_calls") or ()]
        turn.stopped = bool(metadata.get("stopped"))
        turn.limit = metadata.get("limit") or None
        turn.needs_input = bool(metadata.get("needs_input"))
        turn.answer = metadata.get("answer")
        turn.message_id = str(metadata.get("message_id") or turn.message_id)
        return self._ended(message, "done", str(metadata.get("unfinished", message.content)))

    def _error(self, message: Message) -> bool:
        self.turn.error = from_event(message.raw)
        return self._ended(message, "failed", "")

    def _ended(self, message: Message, activity: str, said: str) -> bool:
        self._replied(said)
        self.turn.seconds = float(message.metadata.get("processing_time") or self.turn.seconds)
        self.turn.usage = dict(message.metadata.get("usage") or self.turn.usage)
        self.turn.done = True
        self.activity = activity
        return True
