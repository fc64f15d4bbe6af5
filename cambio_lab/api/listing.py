"""``limit``, ``offset``, filters, ``sort`` and the two documented forms of a list."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .base import Guarded
from .failure import Refused

MAX_LIMIT = 200
FARTHEST = 2**53
"""A larger offset is beyond every list, and SQLite would not take it."""
_NUMBER = re.compile(r"[+-]?\d{1,1000}\Z", re.ASCII)
_TIMES = (
    re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII),
    re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?\Z", re.ASCII),
)


def limits(handler: Guarded, default: int) -> tuple[int, int]:
    """``(limit, offset)``: a larger ``limit`` than 200 is 200, anything below 1 or not a number is 400."""
    limit = whole(handler, "limit", default, least=1)
    return min(limit, MAX_LIMIT), min(whole(handler, "offset", 0, least=0), FARTHEST)


def whole(handler: Guarded, name: str, default: int, least: int) -> int:
    """A whole number, at least ``least``; anything else is 400."""
    text = handler.argument(name, str(default))
    if not _NUMBER.match(text) or int(text) < least:
        raise Refused(400, f"The query parameter {name} must be a whole number.", {name: f"at least {least}"})
    return int(text)


def choice(handler: Guarded, name: str, allowed: Sequence[str]) -> str | None:
    """A filter with a fixed set of values; absent is ``None``, another value is 400."""
    value = handler.argument(name, "")
    if not value and name not in handler.request.query_arguments:
        return None
    if value not in allowed:
        raise Refused(400, f"The query parameter {name} has no such value.", {name: "one of " + ", ".join(allowed)})
    return value


def moment(handler: Guarded, name: str) -> float | None:
    """A date (its first second, UTC) or a time, as seconds since the epoch; without a zone it is UTC."""
    text = handler.argument(name, "")
    if name not in handler.request.query_arguments:
        return None
    try:
        if not any(pattern.match(text) for pattern in _TIMES):
            raise ValueError
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Refused(
            400, f"The query parameter {name} must be a date or a time.", {name: "like 2024-01-15T10:30:00Z"}
        ) from None


def after(handler: Guarded, name: str) -> float | None:
    """A :func:`moment` after which something is to be: times are shown in whole seconds, so the whole second is out.

    Else who asks for what came after the last row is given that row again.
    """
    found = moment(handler, name)
    return None if found is None else math.nextafter(math.floor(found) + 1.0, 0.0)


def order(handler: Guarded, keys: Sequence[str]) -> list[tuple[str, bool]]:
    """``sort=created_at:desc,name:asc`` as ``[(key, ascending)]``; no direction means ascending, absent is empty."""
    if "sort" not in handler.request.query_arguments:
        return []
    found: list[tuple[str, bool]] = []
    for part in handler.argument("sort", "").split(","):
        key, _, direction = part.strip().partition(":")
        if key not in keys or direction not in {"", "asc", "desc"} or key in {known for known, _ in found}:
            raise Refused(
                400,
                "The query parameter sort cannot be used like this.",
                {"sort": f"key:asc or key:desc, separated by commas, each key once: {', '.join(sorted(keys))}"},
            )
        found.append((key, direction != "desc"))
    return found


def page(name: str, rows: list[dict[str, Any]], total: int, limit: int, offset: int) -> dict[str, Any]:
    """Both documented forms in one body: ``name`` + ``total``, and ``data`` + ``pagination``."""
    return {
        name: rows,
        "total": total,
        "limit": limit,
        "offset": offset,
        "data": rows,
        "pagination": {
            "limit": limit,
            "offset": offset,
            "total": total,
            "has_next": offset + len(rows) < total and bool(rows),
            "has_prev": offset > 0,
        },
    }
