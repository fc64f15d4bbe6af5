"""A session's ``config``: every key, its type and its range. The server's settings fill in what is not given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cambio_lab.agent.gate import parse_policy
from cambio_lab.desktop.base import DesktopOptions, Size
from cambio_lab.desktop.docker.allow import domains
from cambio_lab.errors import InvalidRequest
from cambio_lab.recording.masking import Mask
from cambio_lab.settings import Settings

from .secrets import check_secrets

Check = Callable[[Any], str | None]
"""What is wrong with a value, or ``None``."""

DESKTOPS = ("auto", "docker", "local")
RECORD_MODES = ("once", "none", "all")
SMALLEST, LARGEST = 320, 4096
LONGEST = 10 * 365 * 86_400
NAME_LENGTH = 200
_DISPLAY = re.compile(r"([1-9]\d{2,3})x([1-9]\d{2,3})")


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What the creator of a session asked for; ``None`` where the server's setting holds.

    Documented: ``timeout`` (seconds of life) and ``max_messages`` (user messages). The others are ours.
    """

    timeout: float | None = None
    max_messages: int | None = None
    model: str | None = None
    platform: str | None = None
    system: str | None = None
    desktop: str | None = None
    display: str | None = None
    max_steps: int | None = None
    max_cost_usd: float | None = None
    max_tokens: int | None = None
    max_turn_seconds: float | None = None
    max_turn_tokens: int | None = None
    idle_timeout: float | None = None
    approval: str | list[str] | None = None
    approval_timeout: float | None = None
    network: str | dict[str, Any] | None = None
    image: str | None = None
    record: str | None = None
    record_mode: str | None = None
    fork: dict[str, Any] | None = None
    effort: str | None = None
    thinking: str | None = None
    image_format: str | None = None
    secrets: dict[str, str] | list[str] | None = field(default=None, repr=False)
    """Values the agent may type without seeing them; see :mod:`.secrets`."""

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> SessionConfig:
        """Check every key of ``given``; :class:`InvalidRequest` names all that are unknown or wrong.

        Where ``system`` has the value of a secret, its placeholder is put.
        """
        values = dict(given or {})
        wrong: dict[str, object] = {key: "unknown" for key in values if key not in CHECKS}
        for key, check in CHECKS.items():
            if values.get(key) is not None and (problem := check(values[key])):
                wrong[key] = problem
        if wrong:
            names = {f"config.{key}": problem for key, problem in wrong.items()}
            listed = ", ".join(sorted(wrong))
            hint = f"Known keys: {', '.join(CHECKS)}." if "unknown" in wrong.values() else ""
            raise InvalidRequest(f"config is not valid: {listed}.", hint=hint, details=names)
        config = cls(**values)
        return replace(config, system=config.mask().text(config.system)) if config.system else config

    def mask(self) -> Mask:
        """Takes the values of its secrets out of whatever is said, stored or shown."""
        return Mask(self.secrets)

    def given(self) -> dict[str, Any]:
        """The keys that were given, as they are stored and shown; of secrets only the names."""
        found = {item.name: value for item in fields(self) if (value := getattr(self, item.name)) is not None}
        if self.secrets is not None:
            found["secrets"] = sorted(self.secrets)
        return found

    def life_seconds(self, settings: Settings) -> float:
        """How long the session lives; 0: no limit."""
        return settings.session_timeout if self.timeout is None else self.timeout

    def idle_seconds(self, settings: Settings) -> float:
        """How long it lives without anybody; 0: no limit."""
        return settings.idle_timeout if self.idle_timeout is None else self.idle_timeout

    def desktop_options(self, settings: Settings) -> DesktopOptions:
        network: Any = settings.network if self.network is None else self.network
        hosts: tuple[str, ...] = ()
        if isinstance(network, dict):
            network, hosts = "allow", domains(network["allow"])
        return DesktopOptions(
            size=parse_display(self.display or settings.display),
            network=network,
            allow_hosts=hosts,
            image=self.image,
        )


def parse_display(text: str) -> Size:
    """``1280x800`` as a size; :class:`InvalidRequest` when it is not one."""
    if problem := _display(text):
        raise InvalidRequest(f"display {problem}.", details={"display": problem})
    width, height = text.split("x")
    return Size(int(width), int(height))


def check_name(name: object, mask: Mask | None = None) -> str | None:
    """A session's name, trimmed and masked; ``None`` stands for one that the server makes up."""
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidRequest("name must be text.", details={"name": "must be text"})
    if len(name) > NAME_LENGTH:
        raise InvalidRequest("name is too long.", details={"name": f"at most {NAME_LENGTH} characters"})
    if any(ord(character) < 32 or 0xD800 <= ord(character) <= 0xDFFF for character in name):
        raise InvalidRequest("name has a control character.", details={"name": "no control characters"})
    return (name if mask is None else mask.text(name)).strip() or None


def _number(low: float, *, whole: bool = False, high: float = LONGEST) -> Check:
    kinds = (int,) if whole else (int, float)

    def check(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, kinds) or value != value:
            return "must be a whole number" if whole else "must be a number"
        return None if low <= value <= high else f"must be between {low:g} and {high:g}"

    return check


def _text(longest: int = 1000) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "must be text"
        if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
            return "must be valid Unicode"
        if "\0" in value:
            return "must not contain a null character"
        return None if len(value) <= longest else f"at most {longest} characters"

    return check


def _one_of(*allowed: str) -> Check:
    return lambda value: None if value in allowed else f"must be one of {', '.join(allowed)}"


def _display(value: Any) -> str | None:
    found = _DISPLAY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return "must be WIDTHxHEIGHT in pixels, such as 1280x800"
    if not all(SMALLEST <= int(side) <= LARGEST for side in found.groups()):
        return f"each side must be between {SMALLEST} and {LARGEST} pixels"
    return None


def _approval(value: Any) -> str | None:
    try:
        parse_policy(value)
    except InvalidRequest as error:
        return error.message
    return None


def _network(value: Any) -> str | None:
    if value in ("open", "none"):
        return None
    if isinstance(value, dict) and set(value) == {"allow"} and isinstance(value["allow"], list):
        try:
            domains(value["allow"])
        except ValueError as error:
            return str(error)[:300]
        return None
    return 'must be open, none or {"allow": [host, ...]}'


def _fork(value: Any) -> str | None:
    known = isinstance(value, dict) and set(value) == {"run", "step"} and isinstance(value["run"], str)
    if known and isinstance(value["step"], int) and not isinstance(value["step"], bool) and value["step"] >= 0:
        return None
    return 'must be {"run": a session\'s id or a .cambio file, "step": a number from 0}'


CHECKS: dict[str, Check] = {
    "timeout": _number(1),
    "max_messages": _number(1, whole=True),
    "model": _text(),
    "platform": _text(),
    "system": _text(100_000),
    "desktop": _one_of(*DESKTOPS),
    "display": _display,
    "max_steps": _number(1, whole=True),
    "max_cost_usd": _number(0),
    "max_tokens": _number(1, whole=True),
    "max_turn_seconds": _number(0),
    "max_turn_tokens": _number(0, whole=True),
    "idle_timeout": _number(0),
    "approval": _approval,
    "approval_timeout": _number(0.1),
    "network": _network,
    "image": _text(),
    "record": _text(),
    "record_mode": _one_of(*RECORD_MODES),
    "fork": _fork,
    "effort": _text(),
    "thinking": _text(),
    "image_format": _text(),
    "secrets": check_secrets,
}
