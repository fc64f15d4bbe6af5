"""What a reply cost, by the table of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import UnsupportedModel
from ..events import Usage
from . import models


def price(model: str, usage: Mapping[str, Any]) -> Usage:
    """Return what one reply cost: ``usage`` is the service's object, compaction iterations included.

    Compaction entries of ``iterations`` are not in the top-level sums, so they are added here.
    """
    row = models.DEMO_ROW if model == models.DEMO else models.TABLE.get(models.canonical(model))
    if row is None:
        raise UnsupportedModel(f"No price is known for the model {model!r}.")
    total = _price_one(row.prices, usage)
    for entry in usage.get("iterations") or ():
        if entry.get("type") == "compaction":
            total = total + _price_one(row.prices, entry)
    return replace(total, requests=1)


def _price_one(prices: models.Prices, usage: Mapping[str, Any]) -> Usage:
    fresh = _count(usage, "input_tokens")
    output = _count(usage, "output_tokens")
    written = _count(usage, "cache_creation_input_tokens")
    read = _count(usage, "cache_read_input_tokens")
    hour = min(_count(usage.get("cache_creation") or {}, "ephemeral_1h_input_tokens"), written)
    dollars = (
        fresh * prices.input
        + output * prices.output
        + (written - hour) * prices.write_5m
        + hour * prices.write_1h
        + read * prices.read
    ) / 1e6
    if prices.long_above and fresh + written + read > prices.long_above:
        dollars *= prices.long_factor
    thinking = _count(usage.get("output_tokens_details") or {}, "thinking_tokens")
    return Usage(fresh, output, written, read, thinking, 0, dollars)


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) else 0
