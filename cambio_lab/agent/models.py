"""Which models the agent can drive, where, with which tool, and what they cost: one table.

Sources are Anthropic's computer-use and model pages as of autumn 2026. A price that no page states is an estimate
(``estimated``), set to the most expensive sibling so that the money limit errs on the safe side.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal

from ..desktop.base import Size
from ..errors import ModelRejected, UnsupportedModel

PLATFORMS = ("anthropic", "aws", "bedrock", "google", "foundry")
TOOLSET = "computer_toolset_20260801"
TOOL_2025_11 = "computer_20251124"
TOOL_2025_01 = "computer_20250124"
TOOL_BETAS: dict[str, tuple[str, ...]] = {
    TOOLSET: (),
    TOOL_2025_11: ("computer-use-2025-11-24",),
    TOOL_2025_01: ("computer-use-2025-01-24",),
}
EFFORTS = ("low", "medium", "high", "xhigh", "max")
DEMO = "demo"
_BROWSES = re.compile(r"claude-(opus-4-8|[a-z]+-5(-\d)?)")
"""Models that have the browser toolset: "Opus 4.8, everything of the 5 series" (the browser use tool's page)."""
RETIREMENT = {"claude-sonnet-4-5": "2026-11-30", "claude-opus-4": "2026-06-15", "claude-sonnet-4": "2026-06-15"}
"""The last days on which the Claude API answers, as the SDK has them; other platforms have dates of their own."""
REPLACEMENT = {"claude-sonnet-4-5": "claude-sonnet-5-5", "claude-opus-4": "claude-opus-5-5"}
REPLACEMENT["claude-sonnet-4"] = "claude-sonnet-5-5"
NOTICE_DAYS = 180
PRICES_SOURCE, PRICES_DATE = "https://platform.claude.com/docs/en/models/overview", "2026-11-30"
TASK_BUDGETS = re.compile(r"claude-((fable|mythos)-5(-1)?|opus-(5-5|5|4-8|4-7)|sonnet-5-5|haiku-5-5)")
"""Models that take a task budget (the task budgets page), of at least :data:`LEAST_BUDGET` tokens."""
LEAST_BUDGET = 20_000

Thinking = Literal["always", "between", "default", "adaptive", "budget", "none"]
"""How a model may think: ``always`` (cannot be turned off), ``between`` (at least between tools), ``default`` (on,
may be disabled at effort up to high), ``adaptive`` (may be disabled), ``budget`` (``budget_tokens``), ``none``."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a million tokens. Prompts above ``long_above`` tokens cost ``long_factor`` times as much."""

    input: float
    output: float
    write_5m: float
    write_1h: float
    read: float
    estimated: bool = False
    long_above: int = 0
    long_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may measure. With more than ``many`` images in a request each side is at most ``many_edge``."""

    edge: int
    tokens: int
    many: int = 20
    many_edge: int = 2000
    per_request: int = 600

    @property
    def largest_edge(self) -> int:
        """Pixels a side that may be sent in any number; coordinates are those of the screenshots."""
        return min(self.edge, self.many_edge)

    def cost(self, width: int, height: int) -> int:
        """Return the tokens of a ``width`` x ``height`` image."""
        return math.ceil(width / 28) * math.ceil(height / 28)

    def problem(self, width: int, height: int) -> str | None:
        """Return why images of this size cannot be sent one to one, or ``None``."""
        if max(width, height) > self.edge:
            return f"a side of {max(width, height)} pixels is over the model's {self.edge}"
        if self.cost(width, height) > self.tokens:
            return f"{self.cost(width, height)} visual tokens are over the model's {self.tokens}"
        return None


HIGH_RESOLUTION = ImageLimits(edge=2576, tokens=4784)
LOW_RESOLUTION = ImageLimits(edge=1568, tokens=1568, per_request=100)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model; :func:`resolve` gives it with its name, platform and tool, as the loop needs it."""

    tools: Mapping[str, str]
    """The computer tool that drives it, by platform."""
    prices: Prices
    thinking: Thinking = "adaptive"
    bound: bool = False
    """Thinking is tied to everything before it: the history is append-only."""
    effort: bool = True
    images: ImageLimits = HIGH_RESOLUTION
    managed: bool = True
    """The service clears and summarises old context when asked to."""
    structured: bool = True
    """It has structured outputs: from the 4.5 models on (the structured outputs page)."""
    context: int = 1_000_000
    most_output: int = 128_000
    """Largest ``max_tokens`` that the service takes."""
    model: str = ""
    platform: str = ""
    tool: str = ""

    @property
    def betas(self) -> tuple[str, ...]:
        return TOOL_BETAS[self.tool]

    @property
    def browses(self) -> bool:
        """Whether it has the browser toolset."""
        return _BROWSES.fullmatch(self.model) is not None


def _guess(base: Prices) -> Prices:
    return replace(base, estimated=True)


def _old(tools: Mapping[str, str], prices: Prices, most_output: int = 64_000, *, structured: bool = True) -> ModelInfo:
    """Return a row for a model that thinks by budget, sees less, and whose context the service does not manage."""
    return ModelInfo(
        tools,
        prices,
        "budget",
        effort=False,
        images=LOW_RESOLUTION,
        managed=False,
        context=200_000,
        most_output=most_output,
        structured=structured,
    )


_FABLE = Prices(10, 50, 12.5, 20, 0.25)
_FABLE_5_2 = Prices(8, 40, 10, 16, 0.20, estimated=True)
_OPUS_5_5 = Prices(4, 20, 5, 8, 0.20)
_OPUS = Prices(5, 25, 6.25, 10, 0.50)
_OPUS_4_1 = Prices(15, 75, 18.75, 30, 1.50)
_SONNET_5_5 = Prices(2, 10, 2.50, 4, 0.10)
_SONNET_5 = Prices(2, 10, 2.50, 4, 0.20)
_SONNET_4 = Prices(3, 15, 3.75, 6, 0.30)
_HAIKU_5_5 = Prices(0.10, 0.50, 0.125, 0.20, 0.01, long_above=100_000, long_factor=5)
_HAIKU_4_5 = Prices(1, 5, 1.25, 2, 0.10)

_OWN = ("anthropic", "aws")  # Anthropic runs them: same models, features and dates
_API = (*_OWN, "google")
_NEWEST: dict[str, str] = {
    **dict.fromkeys(_API, TOOLSET),
    "bedrock": TOOL_2025_11,
}  # not on Foundry under any listed tool
_BOTH: dict[str, str] = {**dict.fromkeys(_API, TOOLSET), "bedrock": TOOL_2025_11, "foundry": TOOL_2025_11}
_SINGLE: dict[str, str] = dict.fromkeys(PLATFORMS, TOOL_2025_11)
_FIRST: dict[str, str] = dict.fromkeys(PLATFORMS, TOOL_2025_01)

TABLE: dict[str, ModelInfo] = {
    "claude-fable-5-2": ModelInfo(_NEWEST, _FABLE_5_2, "always", bound=True),
    "claude-mythos-5-2": ModelInfo(_NEWEST, _guess(_FABLE), "always", bound=True),
    "claude-haiku-5-5": ModelInfo(dict.fromkeys(_API, TOOLSET), _HAIKU_5_5, "default", bound=True),
    "claude-sonnet-5-5": ModelInfo(_NEWEST, _SONNET_5_5, "between", bound=True),
    "claude-opus-5-5": ModelInfo(_NEWEST, _OPUS_5_5, "always", bound=True),
    "claude-fable-5-1": ModelInfo(_BOTH, _FABLE, "always", bound=True),
    "claude-mythos-5-1": ModelInfo(_BOTH, _guess(_FABLE), "always", bound=True),
    "claude-sonnet-5": ModelInfo(_BOTH, _SONNET_5),
    "claude-fable-5": ModelInfo(_BOTH, _guess(_FABLE)),
    "claude-mythos-5": ModelInfo(_BOTH, _guess(_FABLE)),
    "claude-opus-5": ModelInfo(_BOTH, _OPUS),
    "claude-opus-4-8": ModelInfo(_BOTH, _guess(_OPUS)),
    "claude-opus-4-7": ModelInfo(_SINGLE, _guess(_OPUS)),
    "claude-opus-4-6": ModelInfo(_SINGLE, _guess(_OPUS), images=LOW_RESOLUTION),
    "claude-sonnet-4-6": ModelInfo(_SINGLE, _guess(_SONNET_4), images=LOW_RESOLUTION),
    "claude-opus-4-5": _old(_SINGLE, _guess(_OPUS)),
    "claude-sonnet-4-5": _old(_FIRST, _guess(_SONNET_4)),
    "claude-haiku-4-5": _old(_FIRST, _guess(_HAIKU_4_5)),
    "claude-opus-4-1": _old(_FIRST, _guess(_OPUS_4_1), 32_000, structured=False),
    "claude-opus-4": _old(_FIRST, _guess(_OPUS_4_1), 32_000, structured=False),
    "claude-sonnet-4": _old(_FIRST, _guess(_SONNET_4), structured=False),
}
DEMO_ROW = ModelInfo(
    dict.fromkeys(PLATFORMS, TOOLSET), Prices(0, 0, 0, 0, 0), "none", effort=False, managed=False, structured=False
)

_DECORATIONS = re.compile(r"^(?:(?:us|eu|jp|au|apac|global)\.)?(?:anthropic\.)?|(?:-v\d+(?::\d+)?)?$")
_DATE = re.compile(r"(?:[-@]20\d{6}|@latest|@default|-0)$")


def canonical(model: str) -> str:
    """Return the table's name of a model: ``us.anthropic.claude-sonnet-4-5-20250929-v1:0`` is ``claude-sonnet-4-5``."""
    return _DATE.sub("", _DECORATIONS.sub("", model.strip()))


def resolve(model: str, platform: str = "anthropic") -> ModelInfo:
    """Return the row for a pair. :class:`~cambio_lab.errors.UnsupportedModel` suggests similar names."""
    row = DEMO_ROW if model == DEMO else TABLE.get(canonical(model))
    tool = row.tools.get(platform) if row else None
    if row is None or tool is None:
        raise UnsupportedModel(
            f"The model {model!r} cannot drive a desktop on the platform {platform!r}.",
            hint=_suggestion(model, platform),
            details={"model": model, "platform": platform},
        )
    managed = row.managed and platform in _API  # elsewhere no page promises it
    structured = row.structured and platform != "foundry"  # in beta there
    return replace(row, model=model, platform=platform, tool=tool, managed=managed, structured=structured)


def wire_model(model: str, platform: str) -> str:
    """Return a model's name as the platform spells it: Bedrock's ids start with the maker's name."""
    if platform == "bedrock" and model.startswith("claude-"):
        return f"anthropic.{model}"
    return model


def check_screen(info: ModelInfo, size: Size) -> None:
    """Raise :class:`ModelRejected` when the model cannot be sent screenshots of this size."""
    if problem := info.images.problem(*size):
        raise ModelRejected(
            f"Screenshots of this {size} screen are too large for {info.model}: {problem}.",
            hint="Give the session a smaller display, such as 1280x800.",
        )


def _suggestion(model: str, platform: str) -> str:
    """Return the platforms that have ``model``, else the names that look like it."""
    name = canonical(model)
    if elsewhere := [other for known, other in pairs() if known == name]:
        return f"It is known on: {', '.join(elsewhere)}."
    names = [DEMO, *(known for known, there in pairs() if there == platform)]
    similar = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.4)
    choice = f"Did you mean {' or '.join(similar)}? " if similar else ""
    return f"{choice}`await lab.model_names()` and GET /cambio/models list every model."


def pairs() -> list[tuple[str, str]]:
    """Return every (model, platform) that the table lists."""
    return [(model, platform) for model, row in TABLE.items() for platform in PLATFORMS if platform in row.tools]


def retired(model: str, platform: str, today: date) -> bool:
    """Whether the service no longer answers for this model."""
    return platform in _OWN and RETIREMENT.get(canonical(model), "9999") < today.isoformat()


def notice(model: str, platform: str, today: date) -> str | None:
    """Return what to tell people about a model that has retired, or does so within half a year."""
    name = canonical(model)
    day = RETIREMENT.get(name) if platform in _OWN else None
    if day is None or date.fromisoformat(day) - today > timedelta(NOTICE_DAYS):
        return None
    verb = "was retired" if retired(model, platform, today) else "retires"
    return f"The model {model} {verb} on {day}; its replacement is {REPLACEMENT[name]}."


def describe(today: date | None = None) -> list[dict[str, Any]]:
    """Return the table as JSON: model, platform, tool, prices in dollars per million tokens, limits, retirement.

    With a date, without what has retired by then.
    """
    rows = []
    for model, platform in pairs():
        if today is not None and retired(model, platform, today):
            continue
        info = resolve(model, platform)
        rows.append(
            {
                "model": model,
                "platform": platform,
                "tool": info.tool,
                "thinking": info.thinking,
                "efforts": list(EFFORTS) if info.effort else [],
                "prices": {
                    "input": info.prices.input,
                    "output": info.prices.output,
                    "cache_write": info.prices.write_5m,
                    "cache_read": info.prices.read,
                    "estimated": info.prices.estimated,
                    "source": PRICES_SOURCE,
                    "as_of": PRICES_DATE,
                },
                "retires": RETIREMENT.get(model) if platform in _OWN else None,
                "replacement": REPLACEMENT.get(model),
                "max_image_edge": info.images.edge,
                "context": info.context,
            }
        )
    return rows
