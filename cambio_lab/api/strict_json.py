"""JSON as the documented API takes it: no duplicate keys, no ``NaN``, no half characters, no bottomless nesting."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 100
"""Levels; what is parsed must be written again, wherever on the stack that happens."""

SHORT = 100
"""Characters of a name or id that a caller gives."""


class BadJson(ValueError):
    """The text is not JSON; the message is safe to send back."""


def parse(data: bytes | str) -> Any:
    """The value that ``data`` (UTF-8) spells. Raises :class:`BadJson`, never anything else."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError:
        raise BadJson("The text is not UTF-8.") from None
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except BadJson:
        raise
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg} at line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise BadJson("Nested too deeply.") from None
    except ValueError:  # an integer with thousands of digits
        raise BadJson("A number is too long.") from None
    if text.count("[") + text.count("{") > DEEPEST and _too_deep(value):
        raise BadJson("Nested too deeply.")
    if "\\ud" in text or "\\uD" in text:
        _no_half_characters(value)
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadJson(f"The key {twice[:100]!r} appears twice.")
    return found


def _no_constant(name: str) -> Any:
    raise BadJson(f"{name} is not JSON.")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadJson("A number is too large.")
    return value


def _too_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _no_half_characters(value: Any) -> None:
    """An escaped lone surrogate parses, but cannot be stored or sent on as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadJson("A \\u escape is half of a surrogate pair.") from None


def encode(body: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
