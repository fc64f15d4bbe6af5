"""Where a turn is shown while it runs: on a terminal, or wherever a host such as a notebook shows it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from ..errors import ConfigurationError
from .message import Message
from .text import visible
from .turn import Turn, TurnBuilder

if TYPE_CHECKING:
    from .session import Session

PROGRESS_SECONDS = 2.0
"""Short work needs no progress bar, and leaves the same page every time."""


class TurnDisplay:
    """Shows one turn; this one shows nothing. ``changed`` follows each message, ``tick`` each half second at least."""

    def changed(self, builder: TurnBuilder, message: Message) -> None:
        """Show what ``message`` added to the turn."""

    def tick(self, builder: TurnBuilder) -> None:
        """Show the time."""

    def finished(self, turn: Turn) -> None:
        """Show how the turn ended."""


class Host(Protocol):
    """The program that a user looks at: ``cambio_lab.jupyter`` provides one for notebooks."""

    rich: bool
    """Screenshots can be shown."""

    def turn(self, show: bool | None) -> TurnDisplay: ...
    def panel(self, session: Session, **options: Any) -> Any: ...


class Terminal:
    """A script or a terminal: lines of text, no panels."""

    rich = False

    def turn(self, show: bool | None) -> TurnDisplay:
        """Print when asked to, or when a person looks at the terminal."""
        return TextDisplay(sys.stdout) if show or (show is None and sys.stdout.isatty()) else TurnDisplay()

    def panel(self, session: Session, **options: Any) -> Any:
        raise ConfigurationError("A panel needs a notebook.", hint=f"The desktop itself is at {session.vnc_url}")


class TextDisplay(TurnDisplay):
    """Prints what is new: streamed text as it comes, a line for each step; no clock, because a printed line stays."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._midline = False

    def changed(self, builder: TurnBuilder, message: Message) -> None:
        if message.type == "agent_delta" and message.metadata.get("kind", "text") == "text":
            self._write(visible(message.content))
        elif message.type == "tool_execution" and message.status == "started":
            step = builder.turn.steps[-1]
            self._line(f"  {step.number}. {step.summary}")
        elif message.type == "tool_execution" and message.status == "failed":
            outcome = "denied" if message.metadata.get("denied") else message.metadata.get("ended") or "failed"
            self._line(f"     {outcome}: {visible(str(message.result.get('text') or ''))[:200]}")
        elif message.type == "connection" or message.event in ("approval", "question", "retry"):
            again = "; the unfinished text above is repeated" if message.metadata.get("dropped_text") else ""
            self._line(f"  [{visible(message.content)}{again}]")

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


class Progress:
    """``with Progress("Sending data.csv", total=bytes) as bar: bar.to(65536)``: one line on stderr, after two seconds.

    ``total=None``: only the time is known. Methods may be called from any thread.
    """

    def __init__(self, label: str, total: float | None = None, *, show: bool | None = None) -> None:
        self.label, self.total, self.value = label, total, 0.0
        self._shown = host.rich or sys.stderr.isatty() if show is None else show
        self._started = time.monotonic()
        self._last = self._started + PROGRESS_SECONDS

    def to(self, value: float) -> None:
        """Set the value; a negative time since the last line means that it is too early for one."""
        self.value = value
        if self._shown and time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            self._draw("")

    def _draw(self, end: str) -> None:
        amount = f"{100 * self.value / self.total:3.0f} % · " if self.total else ""
        line = f"{visible(self.label)}: {amount}{time.monotonic() - self._started:.0f} s"
        sys.stderr.write(f"\r{line:<70}{end}")
        sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self._shown and self._last > self._started + PROGRESS_SECONDS:
            self._draw(", failed\n" if kind else ", done\n")


host: Host = Terminal()

"""Shows turns and panels; a notebook puts its own here."""
