"""What a user sees: text that is safe to show, tables, progress, and a turn while it runs."""

from __future__ import annotations

import html
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import ConfigurationError, load_optional

if TYPE_CHECKING:
    from .message import Message
    from .session import Session
    from .turn import Turn, TurnBuilder

LONGEST = 80
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|\x9b[0-?]*[ -/]*[@-~]")
_JOINERS = frozenset("\u200c\u200d\ufe0f")
PROGRESS_SECONDS = 2.0
"""Short work needs no progress bar, and leaves the same page every time."""


def describe(tool: str, arguments: Mapping[str, Any]) -> str:
    """``left_click (412, 300)``, ``type 'Hello'``, ``bash ls -l``: one line of printable characters."""
    parts: list[str] = []
    for name, value in arguments.items():
        if name in ("coordinate", "start_coordinate") and isinstance(value, list | tuple) and len(value) == 2:
            parts.append(f"{'from ' if name == 'start_coordinate' else ''}({value[0]}, {value[1]})")
        elif isinstance(value, str) and name != "action":
            parts.append(repr(clip(value, 60)) if name == "text" else clip(value, 60))
        elif name != "action":
            parts.append(f"{name}={clip(str(value), 40)}")
    return f"{tool} {clip(' '.join(parts))}".strip()


def clip(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, without control characters, at most ``longest`` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def visible(text: str) -> str:
    """``text`` without ANSI sequences and control characters other than newline and tab, and without bidi overrides."""
    return "".join(c for c in _ANSI.sub("", text) if c in "\n\t" or (c.isprintable() or c in _JOINERS) or c == " ")


def shorten(value: str, limit: int) -> str:
    """Return the beginning and the end of ``value``, and how much is missing between them."""
    if len(value) <= limit:
        return value
    half = limit // 2
    return f"{value[:half]}\n… {len(value) - 2 * half:,} characters left out …\n{value[-half:]}"


class Table(list[dict[str, Any]]):
    """A list of rows (dicts). ``total`` counts what the server has, ``columns`` is what a cell shows."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, total: int | None = None) -> None:
        super().__init__(dict(row) for row in rows)
        self.columns = list(columns)
        self.total = len(self) if total is None else total

    def to_frame(self) -> Any:
        """All fields as a pandas DataFrame (needs the ``analysis`` extra)."""
        hint = 'Install it with: pip install "cambio-lab[analysis]". The table itself is a list of dicts.'
        return load_optional("pandas", "A DataFrame needs pandas.", hint).DataFrame(list(self))

    def _repr_html_(self) -> str:
        title, cell = (
            '<th scope="col" style="text-align:left">{}</th>'.format,
            '<td style="text-align:left">{}</td>'.format,
        )
        head = "".join(title(html.escape(name.replace("_", " "))) for name in self.columns)
        rows = ("".join(cell(_cell(row.get(name))) for name in self.columns) for row in self)
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{self._count()}</p>"

    def __repr__(self) -> str:
        rows = [self.columns, *([clip(_text(row.get(name)), 60) for name in self.columns] for row in self)]
        widths = [max(len(row[index]) for row in rows) for index in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, self._count()])

    def _count(self) -> str:
        return f"{len(self)} of {self.total}" if self.total > len(self) else f"{len(self)} in all"


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(inner) for inner in value)
    return str(value)


def _cell(value: Any) -> str:
    text = visible(_text(value))
    return html.escape(text if len(text) <= 500 else text[:499] + "…").replace("\n", "<br>")


class TurnDisplay:
    """Shows one turn; this one shows nothing. ``changed`` follows each message, ``tick`` each half second at least."""

    def changed(self, builder: TurnBuilder, message: Message) -> None:
        """Show what ``message`` added to the turn."""

    def tick(self, builder: TurnBuilder) -> None:
        """Show the time."""

    def finished(self, turn: Turn) -> None:
        """Show how the turn ended."""


class Host:
    """The program that a user looks at: here a script or a terminal; ``cambio_lab.jupyter`` has one for notebooks."""

    rich = False
    """Screenshots can be shown."""

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


host = Host()
"""Shows turns and panels; a notebook puts its own here."""
