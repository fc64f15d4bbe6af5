"""What a run consists of, wherever it comes from: the store of a server or a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import BundleRefused
from . import skeleton

Json = dict[str, Any]
FORMAT = "cambio-run"
VERSION = 1
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


@dataclass(frozen=True)
class Contents:
    """A whole run. The lists hold JSON objects as they stand in the files of the same names; see docs/runs.md."""

    manifest: Json
    events: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    steps: list[Json] = field(default_factory=list)
    exchanges: list[Json] = field(default_factory=list)
    observations: list[Json] = field(default_factory=list)
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Media type by digest of every picture that the lists name and that is there."""
    find: Callable[[str], bytes | None] = lambda digest: None
    """A picture's bytes."""

    @cached_property
    def skeletons(self) -> list[bytes]:
        """The requests without their pictures, one for each exchange."""
        made: dict[int, bytes] = {}
        for exchange in self.exchanges:
            change = exchange["request"]
            base = change.get("base")
            if base is not None and base not in made:
                raise BundleRefused(f"request {exchange['number']} builds on request {base}, which is missing")
            made[exchange["number"]] = skeleton.apply(made[base] if base is not None else b"", change)
        return list(made.values())

    def request(self, index: int) -> bytes:
        """The body of exchange ``index`` (from 0), to the byte."""
        return skeleton.expand(self.skeletons[index], self.find)

    def conversation(self) -> list[Json]:
        """The messages with their pictures inline, as the model was sent them."""
        return [inline(message, self.find) for message in self.messages]


def inline(value: Any, find: Callable[[str], bytes | None]) -> Any:
    """``value`` with each picture reference replaced by the picture; a missing one by a line of text."""
    import base64

    if isinstance(value, list):
        return [inline(item, find) for item in value]
    if not isinstance(value, dict):
        return value
    source = value.get("source")
    if value.get("type") == "image" and isinstance(source, dict) and source.get("type") == "cambio_picture":
        data = find(str(source["sha256"]))
        if data is None:
            return {"type": "text", "text": "[the picture was removed]"}
        encoded = {"type": "base64", "media_type": source["media_type"], "data": base64.b64encode(data).decode()}
        return {**value, "source": encoded}
    return {key: inline(item, find) for key, item in value.items()}


def dump(value: Any) -> str:
    """One line of JSON; keys keep their order, which a byte-identical conversation needs."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def picture_media_types(contents_lists: list[list[Json]]) -> dict[str, str]:
    """Media type by digest of every picture that these lists name."""
    found: dict[str, str] = {}

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, dict):
            if isinstance(value.get("sha256"), str) and value.get("media_type") in SUFFIXES:
                found[value["sha256"]] = value["media_type"]
            for item in value.values():
                walk(item)

    for items in contents_lists:
        walk(items)
    return found
