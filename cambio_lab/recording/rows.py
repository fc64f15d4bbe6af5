"""A run step by step: one flat row for each tool call."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..events import Usage
from . import Contents, Json

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("step", "turn", "action", "arguments", "status", "model_ms", "action_ms", "settle_ms", "encode_ms", "total_ms"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "thinking_tokens", "cost_usd"),
    *("started_at", "screenshot", "text", "said", "actor", "unseen_screenshot", "unseen_tree"),
)
_USAGE = frozenset(item.name for item in fields(Usage))


def rows(contents: Contents) -> list[Json]:
    """Return a row with :data:`COLUMNS` for each step, in order.

    Times are milliseconds (``started_at``: epoch seconds), ``screenshot`` is a digest or ``None``. What a reply of
    the model cost and ``said`` is in the row of its first call. ``unseen_screenshot`` and ``unseen_tree`` are what the
    session observed and the model was not shown.
    """
    found = _replies(contents)
    unseen = {event["tool_use_id"]: event for event in contents.events if event["kind"] == "Unseen"}
    return [
        {**_row(step, found.get(step["tool_use_id"], {})), **_unseen(unseen.get(step["tool_use_id"], {}))}
        for step in contents.steps
    ]


def _unseen(event: Json) -> Json:
    image = event.get("image") or {}
    return {"unseen_screenshot": image.get("sha256"), "unseen_tree": event.get("tree", "")}


def _row(step: Json, reply: Json) -> Json:
    timing, usage = step["timing"], reply.get("usage", Usage())
    return {
        "step": step["step"],
        "turn": reply.get("turn", 0),
        "action": step["tool"],
        "arguments": step["arguments"],
        "status": step["status"],
        "model_ms": reply.get("model_ms", 0.0),
        "action_ms": timing.get("action", 0.0),
        "settle_ms": timing.get("settle", 0.0),
        "encode_ms": timing.get("encode", 0.0),
        "total_ms": timing.get("total", 0.0),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_input_tokens,
        "cache_write_tokens": usage.cache_creation_input_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "cost_usd": usage.cost_usd,
        "started_at": step.get("started_at", 0.0),
        "screenshot": step.get("sha256"),
        "text": step.get("text", ""),
        "said": reply.get("text", ""),
        "actor": step.get("actor", "agent"),
    }


def _replies(contents: Contents) -> dict[str, Json]:
    """Return the turn of each call by its id; for the first call of a reply also its text, time and usage."""
    found: dict[str, Json] = {}
    pending: Json = {}
    turn = 0
    for event in contents.events:
        kind = event["kind"]
        if kind == "UserMessage":
            turn += 1
        elif kind == "ModelReplied":
            pending = {"model_ms": event["model_ms"], "text": event["text"], "usage": usage_of(event["usage"])}
        elif event.get("actor") == "human":
            found[event["tool_use_id"]] = {"turn": turn}
        elif kind == "ToolStarted" or (kind == "ToolFinished" and event["tool_use_id"] not in found):
            found[event["tool_use_id"]] = {**pending, "turn": turn}
            pending = {}
    return found


def usage_of(values: Json) -> Usage:
    """Return a recorded usage; unknown names are left out."""
    return Usage(**{name: value for name, value in (values or {}).items() if name in _USAGE})


def load_pandas() -> Any:
    """Return pandas; :class:`~cambio_lab.errors.ConfigurationError` says how to install it, and what needs none."""
    try:
        import pandas
    except ImportError:
        raise ConfigurationError(
            "Tables need pandas.",
            hint='Install it with: pip install "cambio-lab[analysis]". `run.rows` is the same as a list of dicts.',
        ) from None
    return pandas


def frame(contents: Contents) -> pd.DataFrame:
    """Return the rows as a DataFrame; ``started_at`` becomes UTC time. Needs pandas (the ``analysis`` extra)."""
    pd = load_pandas()
    table = pd.DataFrame(rows(contents), columns=list(COLUMNS))
    table["started_at"] = pd.to_datetime(table["started_at"], unit="s", utc=True)
    return table.set_index("step", drop=False)


def points(arguments: Json) -> list[tuple[int, int]]:
    """Return where an action points, in pixels: no place, one, or the two ends of a drag."""
    found = []
    for name, of_browser in (("start_coordinate", "from"), ("coordinate", "target")):
        value: Any = arguments.get(name)
        if isinstance(target := arguments.get(of_browser), dict):  # a place in the page
            value = target.get("coordinate", [target.get("x"), target.get("y")])
        if isinstance(value, list) and len(value) == 2 and all(_is_coordinate(item) for item in value):
            found.append((value[0], value[1]))
    return found


def _is_coordinate(value: Any) -> bool:
    return isinstance(value, int) and abs(value) <= 100_000


def describe(action: str, arguments: Json, status: str = "completed") -> str:
    """Return an action in a few words, such as ``left_click (640, 400)`` or ``type 'hello' – denied``."""
    said = [f"({x}, {y})" for x, y in points(arguments)]
    for name, value in arguments.items():
        if name not in {"coordinate", "start_coordinate"} and value is not None:
            said.append(repr(value) if name in {"text", "command"} else f"{name}={value!r}")
    return f"{action} {' '.join(said)}".strip() + ("" if status in ("completed", "started") else f" – {status}")


def counted(number: float, noun: str) -> str:
    """Return ``1 step``, ``2 steps``."""
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return ``text`` on one line; what could steer a terminal or hide text is escaped, as in ``\\x1b``."""
    return "".join(c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode() for c in text)


_JOINERS = "\u200c\u200d"  # parts of words and emoji
