"""IPython as the host of a client: turns in cells, sessions as panels, text in a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from ..client import display as client_display
from ..client.display import Terminal, TextDisplay, TurnDisplay
from ..client.message import Message
from ..client.session import Session
from ..client.turn import Turn, TurnBuilder
from . import record
from .follower import show_raw

CLOCK_SECONDS = 1.0
REFRESH_SECONDS = 0.15
"""Shortest time between two updates of a cell: streamed text would otherwise flood the page."""


_installed: list[object] = []
_shown: dict[int, int] = {}
"""Turns by ``id()`` that a cell showed while they ran, and the number of the cell."""


def install(shell: Any = None) -> None:
    """Show turns, sessions and panels in the running IPython, a kernel's or a terminal's. May be called again."""
    shell = shell or get_ipython()
    if shell is None or shell in _installed:
        return
    _installed.append(shell)
    kernel = "ipykernel" in sys.modules and type(shell).__module__.startswith("ipykernel")
    client_display.host = NotebookHost() if kernel else IPythonTerminal()
    formatters = shell.display_formatter
    if kernel:
        formatters.ipython_display_formatter.for_type(Turn, _show_turn)
        formatters.ipython_display_formatter.for_type(Session, lambda session: session.panel()._ipython_display_())
    else:
        formatters.formatters["text/plain"].for_type(Turn, lambda turn, p, cycle: p.text(_turn_as_text(turn)))


def execution_count() -> int:
    """Return the number of the running cell."""
    return int(InteractiveShell.instance().execution_count)


def _show_turn(turn: Turn) -> None:
    """Show a turn as a cell's value, unless this cell has shown it while it ran."""
    if _shown.get(id(turn)) != execution_count():
        show_raw(record.bundle([turn]))


def _turn_as_text(turn: Turn) -> str:
    printed = _shown.get(id(turn)) == execution_count()
    return f"<Turn: {turn.outcome}>" if printed else "\n".join(turn.transcript())


class IPythonTerminal(Terminal):
    """Text, also where the terminal is not asked for it; a turn that was printed is not printed again as the value."""

    def turn(self, show: bool | None) -> TurnDisplay:
        return TurnDisplay() if show is False else Printed(sys.stdout)


class Printed(TextDisplay):
    """A turn that is printed while it runs."""

    def finished(self, turn: Turn) -> None:
        super().finished(turn)
        _shown[id(turn)] = execution_count()


class NotebookHost:
    """Cells of a notebook."""

    rich = True

    def turn(self, show: bool | None) -> TurnDisplay:
        return TurnDisplay() if show is False else CellDisplay()

    def panel(self, session: Session, **options: Any) -> Any:
        from .panel import SessionPanel

        return SessionPanel(session, **options)


class CellDisplay(TurnDisplay):
    """Two outputs: the transcript with its filmstrip, and the last screenshot as an image of its own.

    The screenshot is apart because some renderers of saved notebooks drop images inside HTML, and LaTeX has no HTML.
    """

    def __init__(self) -> None:
        self._cell = execution_count()
        self._handle = show_raw({"text/plain": "…"})
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
            display(turn.screenshot)  # type: ignore[no-untyped-call]
        _shown[id(turn)] = self._cell


def _running(builder: TurnBuilder) -> dict[str, Any]:
    """Return what a running turn shows, cheap enough for several updates a second: text and the latest screenshot."""
    turn = builder.turn
    page = record.render([turn], title=turn.session_name, with_final=False, with_frames=False, cap=60_000)
    latest = next((step for step in reversed(turn.steps) if step.screenshot is not None), None)
    image = f"<p>{record.frame(latest)}</p>" if latest is not None else ""
    bar = '<progress aria-label="The agent is working"></progress>'
    line = f'<p role="status">{bar} <em>{record.escape(builder.activity, 300)} …</em></p>'
    return {"text/html": page + image + line, "text/plain": f"{record.text([turn])}\n{builder.activity} …"}
