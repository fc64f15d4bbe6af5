"""A turn while it runs: the cell's output, updated in place; lines of text where there is no notebook."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol, TextIO

from ..client.action import visible
from ..client.message import Message
from ..client.turn import Step, Turn, TurnBuilder
from . import record, shell

CLOCK_SECONDS = 1.0
REFRESH_SECONDS = 0.15
"""Shortest time between two updates of a cell: streamed text would otherwise flood the page."""


class Live(Protocol):
    """Shows a turn as it goes on."""

    def changed(self, builder: TurnBuilder, message: Message) -> None: ...
    def tick(self, builder: TurnBuilder) -> None: ...
    def finished(self, turn: Turn) -> None: ...


def live(show: bool | None, stream: TextIO | None = None) -> Live:
    """The display that fits: a notebook output, text on a terminal, or none (``show=False``)."""
    if show is False:
        return Silent()
    if shell.in_kernel():
        return CellLive()
    if show or (stream or sys.stdout).isatty():
        return TextLive(stream or sys.stdout)
    return Silent()


class Silent:
    def changed(self, builder: TurnBuilder, message: Message) -> None:
        """Nothing is shown."""

    def tick(self, builder: TurnBuilder) -> None:
        """Nothing is shown."""

    def finished(self, turn: Turn) -> None:
        """Nothing is shown."""


class CellLive:
    """Two outputs: the transcript with its filmstrip, and the last screenshot as a picture of its own.

    The picture is apart because some renderers of saved notebooks drop pictures inside HTML, and LaTeX has no HTML.
    """

    def __init__(self) -> None:
        self._cell = shell.execution_count()
        self._handle = shell.show({"text/plain": "…"})
        self._last = 0.0
        self._changed = False

    def changed(self, builder: TurnBuilder, message: Message) -> None:
        self._changed = True

    def tick(self, builder: TurnBuilder) -> None:
        """Draw what changed, at most every REFRESH_SECONDS, and the time."""
        now = time.monotonic()
        if now - self._last >= (REFRESH_SECONDS if self._changed else CLOCK_SECONDS):
            self._last, self._changed = now, False
            self._handle.update(_running(builder), raw=True)

    def finished(self, turn: Turn) -> None:
        page = record.render([turn], title=turn.session_name, with_final=False)
        plain = record.text([turn], title=turn.session_name)
        self._handle.update({"text/html": page, "text/plain": plain}, raw=True)
        if turn.screenshot is not None:
            shell.show_object(turn.screenshot)
        turn.shown_in = self._cell


def _running(builder: TurnBuilder) -> dict[str, Any]:
    """Cheap enough for several updates a second: the text so far and the latest picture as it is."""
    turn = builder.turn
    page = record.render([turn], title=turn.session_name, with_final=False, with_frames=False, cap=60_000)
    latest = next((step for step in reversed(turn.steps) if step.picture is not None), None)
    image = f"<p>{record.frame(latest)}</p>" if latest is not None else ""
    bar = '<progress aria-label="The agent is at work"></progress>'
    line = f'<p role="status">{bar} <em>{record.escape(builder.activity, 300)} …</em></p>'
    return {"text/html": page + image + line, "text/plain": record.text([turn])}


class TextLive:
    """Prints what is new: streamed text as it comes, a line for each step."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._midline = False
        self._announced: set[int] = set()

    def changed(self, builder: TurnBuilder, message: Message) -> None:
        if message.type == "agent_delta" and message.metadata.get("kind", "text") == "text":
            self._write(visible(message.content))
        elif message.type == "tool_execution" and message.status == "started":
            steps = builder.turn.steps
            self._line(f"  {_line(steps[-1])}" if steps else message.tool)
        elif message.type == "tool_execution" and message.status == "failed":
            self._line(f"     failed: {visible(str(message.result.get('text') or ''))[:200]}")
        elif message.type == "connection" or message.event in ("approval", "retry"):
            again = "; the unfinished text above is said anew" if message.metadata.get("dropped_text") else ""
            self._line(f"  [{visible(message.content)}{again}]")

    def tick(self, builder: TurnBuilder) -> None:
        """A line that is printed stays: no clock."""

    def finished(self, turn: Turn) -> None:
        if turn.error is not None:
            self._line(f"Error: {turn.error.describe()}")
        self._line(f"({turn.outcome})")

    def _line(self, text: str) -> None:
        self._write(f"\n{text}\n" if self._midline else f"{text}\n")

    def _write(self, text: str) -> None:
        if text:
            self._stream.write(text)
            self._stream.flush()
            self._midline = not text.endswith("\n")


def _line(step: Step) -> str:
    return f"{step.number}. {step.summary}"
