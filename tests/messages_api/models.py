"""What each model of the stand-in accepts and costs.

Written from the service's documentation and deliberately not from ``cambio_lab.agent.models``: two tables that agree
are a check, one table used twice is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

TOOLSET = "computer_toolset_20260801"
BROWSER_TOOLSET = "browser_toolset_20260801"
LEGACY_HEADERS = {
    "computer_20251124": "computer-use-2025-11-24",
    "computer_20250124": "computer-use-2025-01-24",
    "computer_20241022": "computer-use-2024-10-22",
}
EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens."""

    input: float
    output: float
    write_5m: float
    write_1h: float
    read: float


@dataclass(frozen=True)
class Model:
    """One model's rules; ``bound`` means that thinking blocks are tied to everything before them."""

    id: str
    tools: frozenset[str]
    thinking: frozenset[str]
    prices: Prices
    bound: bool = False
    forced_choice: bool = True
    system_messages: bool = False
    high_resolution: bool = True
    max_input_tokens: int = 1_000_000
    max_tokens: int = 128_000
    min_cache_tokens: int = 1024
    off_max_effort: str = "max"
    structured: bool = True

    @property
    def browses(self) -> bool:
        """The browser use tool's page: "Opus 4.8, everything of the 5 series"."""
        return self.id == "claude-opus-4-8" or re.fullmatch(r"claude-[a-z]+-5(-\d)?", self.id) is not None

    @property
    def max_images(self) -> int:
        return 100 if self.max_input_tokens <= 200_000 else 600

    def describe(self) -> dict[str, Any]:
        """Body of ``GET /v1/models/{id}``."""

        def support(value: bool) -> dict[str, bool]:
            return {"supported": value}

        return {
            "id": self.id,
            "type": "model",
            "display_name": self.id.removeprefix("claude-").replace("-", " ").title(),
            "created_at": "2026-08-01T00:00:00Z",
            "lifecycle": "active",
            "line": self.id.split("-")[1],
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": {
                **{name: support(True) for name in ("batch", "citations", "image_input", "pdf_input")},
                "code_execution": support(True),
                "structured_outputs": support(self.structured),
                "server_tools": {
                    "supported": True,
                    "code_execution": support(True),
                    "web_search": support(True),
                },
                "context_management": {
                    "supported": True,
                    "clear_tool_uses_20250919": support(True),
                    "clear_thinking_20251015": support(False),
                    "compact_20260112": support(True),
                },
                "effort": {"supported": True, **{level: support(True) for level in EFFORTS}},
                "thinking": {
                    "supported": True,
                    "types": {
                        kind: support(kind in self.thinking)
                        for kind in ("adaptive", "between_tools", "disabled", "enabled")
                    },
                },
            },
        }


_NEW = frozenset({TOOLSET})
_BOTH = frozenset({TOOLSET, "computer_20251124"})
_OLD = frozenset({"computer_20251124"})
_OLDEST = frozenset({"computer_20250124"})
_ALWAYS = frozenset({"adaptive"})
_ANY = frozenset({"adaptive", "disabled", "enabled"})
_OPUS_5 = Prices(5, 25, 6.25, 10, 0.50)
_FABLE_51 = Prices(10, 50, 12.5, 20, 0.25)

_TABLE = (
    Model("claude-fable-5-2", _NEW, _ALWAYS, Prices(8, 40, 10, 16, 0.20), bound=True, forced_choice=False),
    Model("claude-mythos-5-2", _NEW, _ALWAYS, Prices(8, 40, 10, 16, 0.20), bound=True, forced_choice=False),
    Model("claude-fable-5-1", _BOTH, _ALWAYS, _FABLE_51, bound=True, forced_choice=False),
    Model("claude-mythos-5-1", _BOTH, _ALWAYS, _FABLE_51, bound=True, forced_choice=False),
    Model(
        "claude-opus-5-5",
        _NEW,
        _ALWAYS,
        Prices(4, 20, 5, 8, 0.20),
        bound=True,
        forced_choice=False,
        system_messages=True,
    ),
    Model(
        "claude-sonnet-5-5",
        _NEW,
        frozenset({"adaptive", "between_tools"}),
        Prices(2, 10, 2.50, 4, 0.10),
        bound=True,
        forced_choice=False,
        system_messages=True,
        off_max_effort="high",
    ),
    Model(
        "claude-haiku-5-5",
        _NEW,
        frozenset({"adaptive", "disabled"}),
        Prices(0.10, 0.50, 0.125, 0.20, 0.01),
        bound=True,
        off_max_effort="high",
    ),
    Model("claude-fable-5", _BOTH, _ANY, _FABLE_51),
    Model("claude-mythos-5", _BOTH, _ANY, _FABLE_51),
    Model("claude-opus-5", _BOTH, _ANY, _OPUS_5),
    Model("claude-sonnet-5", _BOTH, _ANY, Prices(2, 10, 2.50, 4, 0.20)),
    Model("claude-opus-4-8", _BOTH, _ANY, _OPUS_5),
    Model("claude-opus-4-7", _OLD, _ANY, _OPUS_5, max_input_tokens=200_000),
    Model("claude-opus-4-6", _OLD, _ANY, _OPUS_5, high_resolution=False, max_input_tokens=200_000),
    Model("claude-opus-4-5", _OLD, _ANY, _OPUS_5, high_resolution=False, max_input_tokens=200_000),
    Model(
        "claude-sonnet-4-6",
        _OLD,
        _ANY,
        Prices(3, 15, 3.75, 6, 0.30),
        high_resolution=False,
        max_input_tokens=200_000,
    ),
    Model(
        "claude-sonnet-4-5",
        _OLDEST,
        _ANY,
        Prices(3, 15, 3.75, 6, 0.30),
        high_resolution=False,
        max_input_tokens=200_000,
    ),
    Model(
        "claude-opus-4-1",
        _OLDEST,
        _ANY,
        Prices(15, 75, 18.75, 30, 1.50),
        high_resolution=False,
        max_input_tokens=200_000,
        max_tokens=32_000,
        structured=False,
    ),
    Model(
        "claude-haiku-4-5",
        _OLDEST,
        _ANY,
        Prices(1, 5, 1.25, 2, 0.10),
        high_resolution=False,
        max_input_tokens=200_000,
    ),
)
MODELS = {model.id: model for model in _TABLE}


def cost_usd(model: Model, usage: dict[str, Any]) -> float:
    """What one reply's usage costs; a prompt of Haiku 5.5 beyond 100k tokens is five times as dear."""
    prices = model.prices
    creation = usage["cache_creation"]
    prompt = usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    dear = 5.0 if model.id == "claude-haiku-5-5" and prompt > 100_000 else 1.0
    millionths = (
        usage["input_tokens"] * prices.input
        + usage["output_tokens"] * prices.output
        + creation["ephemeral_5m_input_tokens"] * prices.write_5m
        + creation["ephemeral_1h_input_tokens"] * prices.write_1h
        + usage["cache_read_input_tokens"] * prices.read
    )
    for entry in usage.get("iterations") or ():
        if entry["type"] == "compaction":
            millionths += entry["input_tokens"] * prices.input + entry["output_tokens"] * prices.output
    return float(millionths * dear / 1e6)
