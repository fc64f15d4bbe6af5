"""Secrets of a session: the agent types them without ever seeing them.

``config.secrets`` maps names to values. The model, the history, the records and the logs know ``{{NAME}}``; the value
is put in at the last moment, where a key is pressed or a command starts, and taken out of what comes back as text.
Values live in this process's memory alone: after a restart a session knows their names only.

What the screen shows is not covered: a secret typed into a field that shows it is in the next screenshot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cambio_lab.desktop.base import CommandResult, Desktop, Settled
from cambio_lab.errors import ActionError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
SHORTEST, LONGEST, MOST = 4, 1000, 50
_PLACEHOLDER = re.compile(r"\{\{([A-Za-z][A-Za-z0-9_]{0,63})\}\}")


def check_secrets(value: Any) -> str | None:
    """What is wrong with ``config.secrets``, never quoting a value. A list of names stands for lost values."""
    if isinstance(value, list):
        value = {name: "x" * SHORTEST if isinstance(name, str) else "" for name in map(_hashable, value)}
    if not isinstance(value, dict) or len(value) > MOST:
        return f"must be an object of at most {MOST} names and values"
    if any(not isinstance(name, str) or not NAME.fullmatch(name) for name in value):
        return "names must be letters, digits and underscores"
    if any(not isinstance(text, str) or not SHORTEST <= len(text) <= LONGEST for text in value.values()):
        return f"values must be text of {SHORTEST} to {LONGEST} characters"
    return None


def hide(text: str, secrets: Mapping[str, str]) -> str:
    """``text`` with each value replaced by its placeholder; the longest first, in case one contains another."""
    for name, value in sorted(secrets.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"{{{{{name}}}}}")
    return text


def introduction(names: list[str]) -> str:
    """What the model is told about them."""
    listed = ", ".join(f"{{{{{name}}}}}" for name in names)
    return (
        f"The user gave you secrets that you cannot see: {listed}. To type one, write its placeholder, braces "
        "included, in a type action or a shell command; the value is put in for you. Do not try to find it out."
    )


class SecretDesktop:
    """A desktop as the agent gets it: placeholders go in, values do not come out. The rest is the desktop's own."""

    def __init__(self, desktop: Desktop, secrets: Mapping[str, str] | list[str]) -> None:
        self._desktop = desktop
        self._names = frozenset(secrets)
        self._values = dict(secrets) if isinstance(secrets, Mapping) else {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desktop, name)

    async def type_text(self, text: str) -> Settled:
        return await self._desktop.type_text(self._fill(text))

    async def run_command(self, command: str, timeout: float = 120.0) -> CommandResult:
        result = await self._desktop.run_command(self._fill(command), timeout)
        return replace(result, stdout=hide(result.stdout, self._values), stderr=hide(result.stderr, self._values))

    def _fill(self, text: str) -> str:
        return _PLACEHOLDER.sub(self._value, text)

    def _value(self, found: re.Match[str]) -> str:
        name = found[1]
        if name not in self._names:
            return found[0]  # not one of ours: braces that belong to the text
        if name not in self._values:
            raise ActionError(f"The value of {{{{{name}}}}} was lost when the server was restarted; ask the user.")
        return self._values[name]


def _hashable(name: Any) -> Any:
    return name if isinstance(name, str) else repr(name) + "!"
