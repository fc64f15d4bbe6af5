"""What a run consists of, whether it comes from a server's store or from a run file."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import BundleRefused
from . import bodies

Json = dict[str, Any]
FORMAT = "cambio-run"
VERSION = 1
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
LARGEST_CONVERSATION = 1024**3
"""Bytes of all screenshots in a conversation together, repetitions included."""


@dataclass(frozen=True)
class Contents:
    """A whole run. The lists hold JSON objects as they stand in the files of the same names; see docs/runs.md."""

    manifest: Json
    events: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    steps: list[Json] = field(default_factory=list)
    exchanges: list[Json] = field(default_factory=list)
    observations: list[Json] = field(default_factory=list)
    screenshots: Mapping[str, str] = field(default_factory=dict)
    """Media type by digest of every screenshot that the lists name and that is there."""
    find: Callable[[str], bytes | None] = lambda digest: None
    """Return the bytes of a screenshot."""

    @property
    def lists(self) -> dict[str, list[Json]]:
        """The lists by name."""
        names = ("events", "messages", "steps", "exchanges", "observations")
        return dict(
            zip(names, (self.events, self.messages, self.steps, self.exchanges, self.observations), strict=True)
        )

    def bodies(self) -> Iterator[bytes]:
        """Yield the requests with references in place of screenshots, one for each exchange."""
        bodies.check_sizes(self.exchanges)
        return bodies.bodies(self.exchanges)

    def request(self, index: int) -> bytes:
        """Return the body of exchange ``index`` (from 0), to the byte."""
        return bodies.expand(next(itertools.islice(self.bodies(), index, None)), self.find)

    def conversation(self) -> list[Json]:
        """Return the messages with their screenshots inline, as the model was sent them."""
        return Inliner(self.find).messages(self.messages)


def parse_request(body: bytes) -> Json:
    """Return the JSON of a request. :class:`~cambio_lab.errors.BundleRefused` when it is not one."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise BundleRefused("a recorded request is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("messages", []), list):
        raise BundleRefused("a recorded request is not one to the Messages API")
    return request


class Inliner:
    """Replaces references to screenshots by their data; a missing one becomes a line of text."""

    def __init__(self, find: Callable[[str], bytes | None]) -> None:
        self._find = find
        self._encoded: dict[str, str | None] = {}
        self._size = 0

    def messages(self, messages: list[Json]) -> list[Json]:
        """Return a copy. :class:`~cambio_lab.errors.BundleRefused` beyond :data:`LARGEST_CONVERSATION`."""
        return [self._copy(message) for message in messages]

    def _copy(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._copy(item) for item in value]
        if not isinstance(value, dict):
            return value
        source = value.get("source")
        if value.get("type") == "image" and isinstance(source, dict) and source.get("type") == "cambio_picture":
            return self._image(value, source)
        return {key: self._copy(item) for key, item in value.items()}

    def _image(self, block: Json, source: Json) -> Json:
        digest = str(source.get("sha256"))
        if digest not in self._encoded:
            data = self._find(digest)
            self._encoded[digest] = base64.b64encode(data).decode() if data else None
        text = self._encoded[digest]
        if not text:
            return {"type": "text", "text": "[the screenshot was removed]"}
        self._size += len(text)
        if self._size > LARGEST_CONVERSATION:
            raise BundleRefused(f"the screenshots of the conversation exceed {LARGEST_CONVERSATION} bytes")
        return {**block, "source": {"type": "base64", "media_type": source.get("media_type"), "data": text}}


def images_of(event: Json) -> list[Json]:
    """Return the images that a message came with: ``sha256``, ``media_type`` and size of each, as far as they fit."""
    found = event.get("metadata", {}).get("images")
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return [row for row in rows if isinstance(row.get("sha256"), str) and row.get("media_type") in SUFFIXES]


def dump(value: Any) -> str:
    """Return one line of JSON; keys keep their order, which a byte-identical conversation needs."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def named_screenshots(lists: list[list[Json]]) -> dict[str, str]:
    """Return the media type by digest of every screenshot that these lists name."""
    found: dict[str, str] = {}
    waiting: list[Any] = list(lists)
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            if isinstance(value.get("sha256"), str) and value.get("media_type") in SUFFIXES:
                found[value["sha256"]] = value["media_type"]
            waiting.extend(value.values())
    return found
