"""``%load_ext cambio_lab``: ``%%agent``, ``%agent_stop``, ``%agent_sessions``."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, needs_local_scope

from ..client.portal import Call, portal
from ..client.screenshot import Screenshot
from ..client.session import Session
from ..client.text import Table
from ..client.workbench import Workbench
from ..errors import InvalidRequest, SessionNotFound

DEFAULT_NAME = "notebook"
RESULT = "agent_result"
_EXPRESSION = re.compile(r"(\{\{|\}\}|\{([^{}\n]+)\})")
_BRACES = "Write {{ and }} for braces."


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
    if (
        str(value) == object.__repr__(value)
        or isinstance(value, Screenshot | Session | Workbench | Call)
        or callable(value)
    ):
        kind = type(value).__name__
        raise InvalidRequest(
            f"{{{source}}} is a {kind}, which has no text form.", hint="Use an attribute, or str(...)."
        )
    return str(value)
