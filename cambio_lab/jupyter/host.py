"""IPython as the host of a client: turns in cells, sessions as panels, text in a terminal, and the magics."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from IPython.core.getipython import get_ipython
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, needs_local_scope
from IPython.display import display

from ..client import Call, portal
from ..client import display as client_display
from ..client.display import Host, Table, TextDisplay, TurnDisplay
from ..client.message import Message
from ..client.screenshot import Screenshot
from ..client.session import Session
from ..client.turn import Turn, TurnBuilder
from ..client.workbench import Workbench
from ..errors import InvalidRequest, SessionNotFound
from . import bundle, escape, frame, render, text
from .follower import show_raw

CLOCK_SECONDS = 1.0
REFRESH_SECONDS = 0.15
"""Shortest time between two updates of a cell: streamed text would otherwise flood the page."""


_installed: list[object] = []
_shown: dict[int, int] = {}
"""Turns by ``id()`` that a cell showed while they ran, and the number of the cell."""
DEFAULT_NAME = "notebook"
RESULT = "agent_result"
_EXPRESSION = re.compile(r"(\{\{|\}\}|\{([^{}\n]+)\})")
_BRACES = "Write {{ and }} for braces."


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
        show_raw(bundle([turn]))


def _turn_as_text(turn: Turn) -> str:
    printed = _shown.get(id(turn)) == execution_count()
    return f"<Turn: {turn.outcome}>" if printed else "\n".join(turn.transcript())


class IPythonTerminal(Host):
    """Text, also where the terminal is not asked for it; a turn that was printed is not printed again as the value."""

    def turn(self, show: bool | None) -> TurnDisplay:
        return TurnDisplay() if show is False else Printed(sys.stdout)


class Printed(TextDisplay):
    """A turn that is printed while it runs."""

    def finished(self, turn: Turn) -> None:
        super().finished(turn)
        _shown[id(turn)] = execution_count()


class NotebookHost(Host):
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
        page = render([turn], title=turn.session_name, with_final=False)
        plain = text([turn], title=turn.session_name)
        self._handle.update({"text/html": page, "text/plain": plain}, raw=True)
        if turn.screenshot is not None:
            display(turn.screenshot)  # type: ignore[no-untyped-call]
        _shown[id(turn)] = self._cell


def _running(builder: TurnBuilder) -> dict[str, Any]:
    """Return what a running turn shows, cheap enough for several updates a second: text and the latest screenshot."""
    turn = builder.turn
    page = render([turn], title=turn.session_name, with_final=False, with_frames=False, cap=60_000)
    latest = next((step for step in reversed(turn.steps) if step.screenshot is not None), None)
    image = f"<p>{frame(latest)}</p>" if latest is not None else ""
    bar = '<progress aria-label="The agent is working"></progress>'
    line = f'<p role="status">{bar} <em>{escape(builder.activity, 300)} …</em></p>'
    return {"text/html": page + image + line, "text/plain": f"{text([turn])}\n{builder.activity} …"}


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a line as an exception; a magic must not end the kernel."""

    def error(self, message: str) -> NoReturn:
        raise InvalidRequest(f"%%{self.prog}: {message}.", hint=self.format_usage().strip())


def _parser() -> Parser:
    parser = Parser(prog="agent", add_help=False)
    parser.add_argument("--session", default=DEFAULT_NAME, metavar="NAME")
    parser.add_argument("--model", metavar="M")
    parser.add_argument("--max-steps", type=int, metavar="N")
    parser.add_argument("--max-cost", type=float, metavar="US$", dest="max_cost_usd")
    parser.add_argument("--approval", choices=("never", "risky", "always"))
    parser.add_argument("--record", metavar="FILE")
    parser.add_argument("--out", default=RESULT, metavar="VARIABLE")
    parser.add_argument("--url", metavar="URL")
    return parser


@magics_class
class AgentMagics(Magics):
    """State of the magics in one kernel: a client and the sessions by name."""

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._variables: dict[str, Any] = shell.user_ns
        self._lab: Workbench | None = None
        self._sessions: dict[str, Session] = {}

    @needs_local_scope
    @cell_magic
    def agent(self, line: str, cell: str, local_ns: Mapping[str, Any] | None = None) -> None:
        """``%%agent [--session NAME] [--model M] [--max-steps N] [--max-cost US$] [--approval P] [--out VARIABLE]``

        Sends the cell's text to the session of that name (made on first use); ``{expression}`` is replaced by its
        value, ``{{`` and ``}}`` are braces. The turn is in ``agent_result`` (or ``--out``). An interrupt stops it.
        """
        options = _parser().parse_args(shlex.split(line))
        if not options.out.isidentifier():
            raise InvalidRequest(f"--out {options.out!r} is no name of a variable.")
        message = fill(cell.strip(), {**self._variables, **(local_ns or {})})
        session = self._session(options)
        try:
            session.send_blocking(message, show=True)
        finally:
            if session.turns:
                self._variables[options.out] = session.turns[-1]

    @line_magic
    def agent_stop(self, line: str) -> None:
        """``%agent_stop [NAME]``: stop the running turn of that session (of all of this notebook's without a name)."""
        names = shlex.split(line)
        unknown = [name for name in names if name not in self._sessions]
        if unknown:
            raise SessionNotFound(f"This notebook has no session {unknown[0]!r}.", hint="%agent_sessions lists all.")
        for name in names or list(self._sessions):
            portal.run(self._sessions[name].stop())

    @line_magic
    def agent_sessions(self, line: str) -> Table:
        """``%agent_sessions [active|inactive|error]``: the server's sessions as a table."""
        return portal.run(self._workbench().sessions(status=line.strip() or None))

    def _workbench(self, url: str | None = None) -> Workbench:
        if self._lab is None or (url is not None and url.rstrip("/") != self._lab.address.url):
            self._lab = Workbench(url)
            self._sessions.clear()
        return self._lab

    def _session(self, options: argparse.Namespace) -> Session:
        """The session of that name: of this notebook, an active one of the server, or a new one."""
        lab = self._workbench(options.url)
        names = ("model", "max_steps", "max_cost_usd", "approval", "record")
        config = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
        session = self._sessions.get(options.session)
        if session is None or portal.run(session.refresh()).get("status") != "active":
            session = portal.run(self._attach_or_create(lab, options.session, config))
            self._sessions[options.session] = session
        return session

    async def _attach_or_create(self, lab: Workbench, name: str, config: dict[str, Any]) -> Session:
        with suppress(SessionNotFound):
            if (session := await lab.session(name)).status == "active":
                return session
        return await lab.create_session(name, **config)


def fill(text: str, variables: Mapping[str, Any]) -> str:
    """Return ``text`` with each ``{expression}`` replaced by the text form of its value.

    ``{{`` and ``}}`` are braces, and a constant in braces (as in JSON) stays as it is. Raises ``InvalidRequest`` for
    what is no expression, what fails, and values without a text form.
    """

    def value(match: re.Match[str]) -> str:
        source = match[2]
        if source is None:
            return match[1][0]
        try:
            whole = ast.parse(f"f'''{{{source}}}'''", mode="eval")
        except SyntaxError:
            raise InvalidRequest(f"{{{source}}} is no Python expression.", hint=_BRACES) from None
        assert isinstance(whole.body, ast.JoinedStr)
        field = whole.body.values[-1]
        assert isinstance(field, ast.FormattedValue)
        if not any(isinstance(node, ast.Name) for node in ast.walk(field.value)):
            return match[0]
        plain = field.format_spec is None and field.conversion == -1
        code = compile(ast.Expression(field.value) if plain else whole, "<agent>", "eval")
        try:
            found = eval(code, dict(variables))
            return _text_form(found, source) if plain else str(found)
        except InvalidRequest:
            raise
        except Exception as error:
            raise InvalidRequest(f"{{{source}}}: {type(error).__name__}: {error}.", hint=_BRACES) from error

    return _EXPRESSION.sub(value, text)


def _text_form(value: Any, source: str) -> str:
    """Return what the agent reads for ``value``; refuse an object that has no text of its own."""
    ours = isinstance(value, Screenshot | Session | Workbench | Call)
    if ours or callable(value) or str(value) == object.__repr__(value):
        text = f"{{{source}}} is a {type(value).__name__}, which has no text form."
        raise InvalidRequest(text, hint="Use an attribute, or str(...).")
    return str(value)
