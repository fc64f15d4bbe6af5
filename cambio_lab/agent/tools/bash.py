"""``bash_20250124``: the session's one persistent shell, inside the desktop's own environment."""

from __future__ import annotations

import time
from typing import Any

from ...desktop.base import Desktop
from ...desktop.machine import CommandResult
from ...errors import ActionError
from ...events import Timing
from ..approval import SHELL
from .call import Call, Outcome, failed


class BashTool:
    """``timeout`` is seconds for one command, ``limit`` characters of output that the model sees."""

    def __init__(self, desktop: Desktop, *, timeout: float, limit: int) -> None:
        self._desktop = desktop
        self._timeout = timeout
        self._limit = limit

    def definitions(self) -> list[dict[str, Any]]:
        return [{"type": "bash_20250124", "name": SHELL}]

    def serves(self, call: Call) -> bool:
        return call.toolset is None and call.name == SHELL

    def member(self, call: Call) -> str:
        return SHELL

    def time_limit(self, call: Call) -> float:
        return self._timeout + 30.0  # the desktop's own limit comes first, and restarts the shell

    async def run(self, call: Call) -> Outcome:
        started = time.perf_counter()
        try:
            outcome = await self._run(call)
        except ActionError as error:
            outcome = failed(error.message)
        total = (time.perf_counter() - started) * 1000
        outcome.timing = Timing(action=total, total=total)
        return outcome

    async def _run(self, call: Call) -> Outcome:
        command, restart = call.arguments.get("command"), call.arguments.get("restart")
        if restart is True:
            await self._desktop.restart_shell()
            return Outcome(text="The shell was restarted.", changed=True)
        if not isinstance(command, str) or not command.strip():
            return failed("Give a command, or restart: true.")
        result = await self._desktop.run_command(command, self._timeout)
        outcome = Outcome(text=self._words(result), changed=True)
        outcome.is_error = result.timed_out
        return outcome

    def _words(self, result: CommandResult) -> str:
        parts = []
        if result.stdout:
            parts.append(cut(result.stdout, self._limit))
        if result.stderr:
            parts.append("stderr:\n" + cut(result.stderr, max(self._limit // 4, 1000)))
        if result.truncated:
            parts.append("(The output was longer than what is kept; the middle or end is missing.)")
        if result.timed_out:
            parts.append(
                f"The command ran longer than {self._timeout:g} seconds and was killed; the shell is a new one now."
            )
        elif result.exit_code:
            parts.append(f"(exit code {result.exit_code})")
        if result.shell_ended:
            parts.append("(The command ended the shell; the next command gets a new shell.)")
        return "\n".join(parts) or "(no output)"


def cut(text: str, limit: int) -> str:
    """``text`` within ``limit`` characters, the middle left out: the ends of an output matter most."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[len(text) - tail :]}"
