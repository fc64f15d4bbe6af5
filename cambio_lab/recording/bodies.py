"""Request bodies without their screenshots: small, comparable, and restored to the byte.

Every request repeats the conversation, so recorded bodies would grow with the square of its length. Two steps keep
them small: the base64 of an image is replaced by a reference (``\\x01`` + SHA-256 in hex; JSON cannot contain a raw
control character), and only what differs from the previous request is stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import BundleRefused

LARGEST_BODY = 64 * 1024**2
"""Bytes of one request with its screenshots; the service takes 32 MB."""
LARGEST_TOTAL = 4 * 1024**3
"""Bytes of all requests of a run together, without screenshots."""
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


def named(exchanges: Sequence[dict[str, Any]]) -> Iterator[str]:
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


def dump(change: dict[str, Any]) -> bytes:
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
