"""What a run consists of, whether it comes from a store or from a run file, and its requests without their screenshots.

Every request repeats the conversation, so recorded bodies would grow with the square of its length. Two steps keep
them small, comparable, and restored to the byte: the base64 of an image is replaced by a reference (``\x01`` + SHA-256
in hex; JSON cannot contain a raw control character), and only what differs from the previous request is stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BundleRefused

LARGEST_BODY = 64 * 1024**2
"""Bytes of one request with its screenshots; the service takes 32 MB."""
LARGEST_TOTAL = 4 * 1024**3
"""Bytes of all requests of a run together, without screenshots."""
Json = dict[str, Any]
FindScreenshot = Callable[[str], bytes | None]
"""The bytes of a screenshot by digest, or ``None``."""
_MARK = b"\x01"
_DATA = b'"data":"'
_SHORTEST = 64  # characters of base64 that are worth a reference
_REFERENCE = re.compile(rb"\x01([0-9a-f]{64})")


class BodyEncoder:
    """Replaces screenshots by references. Each screenshot is decoded once, however often it is sent."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def encode(self, pieces: Sequence[bytes]) -> bytes:
        """Return the body in ``pieces`` with references, or as it is when it contains a control character."""
        body = b"".join(pieces)
        if _MARK in body:
            return body
        parts, at, used = [], 0, {}
        while (found := body.find(_DATA, at)) >= 0:
            start = found + len(_DATA)
            end = body.find(b'"', start)
            if end < 0:
                break
            parts.append(body[at:start])
            text = body[start:end]
            if len(text) >= _SHORTEST:
                key = hashlib.sha256(text).digest()
                used[key] = text = self._known.get(key) or _reference(text)
            parts.append(text)
            at = end
        self._known = {key: text for key, text in used.items() if text.startswith(_MARK)}
        return b"".join([*parts, body[at:]])


def _reference(text: bytes) -> bytes:
    """Return the reference to what this base64 encodes, or ``text`` if encoding again would change a byte."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text
    return _MARK + hashlib.sha256(data).hexdigest().encode() if base64.b64encode(data) == text else text


def references(body: bytes) -> list[str]:
    """Return the digests in order, repetitions included."""
    return [digest.decode() for digest in _REFERENCE.findall(body)]


def named_in_requests(exchanges: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the digests that the requests refer to; what a request shares with the one before is not read again."""
    for exchange, body in zip(exchanges, bodies(exchanges), strict=True):
        change = exchange["request"]
        end = len(body) - max(0, change["suffix"] - 64)
        yield from references(body[max(0, change["prefix"] - 64) : end])


def readable(body: bytes) -> bytes:
    """Return the body as valid JSON that still has references."""
    return body.replace(_MARK, b"sha256:")


def expand(body: bytes, find: FindScreenshot) -> bytes:
    """Return the body with its screenshots.

    :class:`~cambio_lab.errors.BundleRefused` when one is missing or the result exceeds :data:`LARGEST_BODY`.
    """
    encoded: dict[bytes, bytes] = {}
    size = len(body)
    for digest in _REFERENCE.findall(body):
        if digest not in encoded:
            data = find(digest.decode())
            if data is None:
                raise BundleRefused(f"the screenshot {digest[:12].decode()}… is missing")
            encoded[digest] = base64.b64encode(data)
        size += len(encoded[digest])
        if size > LARGEST_BODY:
            raise BundleRefused(f"a recorded request expands to more than {LARGEST_BODY} bytes")
    return _REFERENCE.sub(lambda match: encoded[match[1]], body)


def difference(base: int | None, before: bytes, after: bytes) -> dict[str, Any]:
    """Return ``after`` as what it shares with ``before`` (request number ``base``) at both ends and the rest."""
    prefix = _shared(before, after)
    shortest = min(len(before), len(after)) - prefix
    suffix = _shared(before[len(before) - shortest :], after[len(after) - shortest :], at_end=True)
    # never inside a character: the middle is text
    while prefix and _continues(after, prefix):
        prefix -= 1
    while suffix and _continues(after, len(after) - suffix):
        suffix -= 1
    middle = after[prefix : len(after) - suffix]
    return {"base": base, "prefix": prefix, "suffix": suffix, "middle": middle.decode()}


def _shared(one: bytes, other: bytes, *, at_end: bool = False) -> int:
    """Return how many bytes are equal at the start (or end), by bisection: the comparison runs in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        same = one[len(one) - middle :] == other[len(other) - middle :] if at_end else one[:middle] == other[:middle]
        low, high = (middle, high) if same else (low, middle - 1)
    return low


def _continues(text: bytes, at: int) -> bool:
    return at < len(text) and text[at] & 0xC0 == 0x80


def dump_change(change: dict[str, Any]) -> bytes:
    """Return a difference as it is stored."""
    return json.dumps(change, separators=(",", ":")).encode()


def check_sizes(exchanges: Sequence[dict[str, Any]]) -> None:
    """Refuse requests that do not build on the one before, or that would expand beyond the limits.

    Only lengths are added up: a small file can describe requests of any size.
    """
    previous: int | None = None
    length = total = 0
    for exchange in exchanges:
        number, change = exchange["number"], exchange["request"]
        base = change["base"]
        if base is not None and base != previous:
            raise BundleRefused(f"request {number} builds on request {base}, which is missing")
        before = length if base is not None else 0
        if change["prefix"] > before or change["suffix"] > before:
            raise BundleRefused(f"request {number} does not fit the one before it")
        length = change["prefix"] + change["suffix"] + len(change["middle"].encode())
        total += length
        if length > LARGEST_BODY:
            raise BundleRefused(f"request {number} expands to {length} bytes; the limit is {LARGEST_BODY}")
        if total > LARGEST_TOTAL:
            raise BundleRefused(f"the requests expand to more than {LARGEST_TOTAL} bytes; the limit is {LARGEST_TOTAL}")
        previous = number


def bodies(exchanges: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """Yield each request's body with references, in order. Only one body is held at a time."""
    before = b""
    for exchange in exchanges:
        change = exchange["request"]
        if change["base"] is None:
            before = b""
        end = before[len(before) - change["suffix"] :] if change["suffix"] else b""
        before = before[: change["prefix"]] + change["middle"].encode() + end
        yield before


FORMAT = "cambio-run"
VERSION = 1
LISTS = ("events", "messages", "steps", "exchanges", "observations")
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
    find: FindScreenshot = lambda digest: None
    """Return the bytes of a screenshot."""

    @property
    def lists(self) -> dict[str, list[Json]]:
        """The lists by name."""
        return {name: getattr(self, name) for name in LISTS}

    def bodies(self) -> Iterator[bytes]:
        """Yield the requests with references in place of screenshots, one for each exchange."""
        check_sizes(self.exchanges)
        return bodies(self.exchanges)

    def request(self, index: int) -> bytes:
        """Return the body of exchange ``index`` (from 0), to the byte."""
        return expand(next(itertools.islice(self.bodies(), index, None)), self.find)

    def conversation(self) -> list[Json]:
        """Return the messages with their screenshots inline, as the model was sent them."""
        return inlined(self.messages, self.find)


def parse_request(body: bytes) -> Json:
    """Return the JSON of a request. :class:`~cambio_lab.errors.BundleRefused` when it is not one."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise BundleRefused("a recorded request is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("messages", []), list):
        raise BundleRefused("a recorded request is not one to the Messages API")
    return request


def inlined(messages: list[Json], find: FindScreenshot) -> list[Json]:
    """Return a copy with the data of screenshots for references; a missing one becomes a line of text.

    :class:`~cambio_lab.errors.BundleRefused` beyond :data:`LARGEST_CONVERSATION`.
    """
    encoded: dict[str, str] = {}
    size = 0

    def copy(value: Any) -> Any:
        nonlocal size
        if isinstance(value, list):
            return [copy(item) for item in value]
        if not isinstance(value, dict):
            return value
        source = value.get("source")
        if value.get("type") != "image" or not isinstance(source, dict) or source.get("type") != "cambio_picture":
            return {key: copy(item) for key, item in value.items()}
        digest = str(source.get("sha256"))
        if digest not in encoded:
            encoded[digest] = base64.b64encode(find(digest) or b"").decode()
        if not encoded[digest]:
            return {"type": "text", "text": "[the screenshot was removed]"}
        size += len(encoded[digest])
        if size > LARGEST_CONVERSATION:
            raise BundleRefused(f"the screenshots of the conversation exceed {LARGEST_CONVERSATION} bytes")
        data = {"type": "base64", "media_type": source.get("media_type"), "data": encoded[digest]}
        return {**value, "source": data}

    return [copy(message) for message in messages]


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
