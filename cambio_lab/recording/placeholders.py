"""Placeholders in what is recorded: references for the screenshots in requests, ``{{NAME}}`` for values of secrets.

Every request repeats the conversation, so recorded bodies would grow with the square of its length. Two steps keep
them small, comparable, and restored to the byte: the base64 of an image is replaced by a reference (``\x01`` + SHA-256
in hex; JSON cannot contain a raw control character), and only what differs from the previous request is stored.

The value of a secret is found as it was given, in UTF-8, wherever it stands whole. What a program made of it (folded
lines, base64, another encoding, a part of it) is not recognised.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, AnyStr

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

    def differ(count: int) -> bool:
        return one[len(one) - count :] != other[len(other) - count :] if at_end else one[:count] != other[:count]

    return bisect.bisect_left(range(1, min(len(one), len(other)) + 1), True, key=differ)


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


NAME = r"[A-Za-z][A-Za-z0-9_]{0,63}"


class Mask:
    """Knows a session's secrets; without any, everything stays as it is."""

    def __init__(self, secrets: Mapping[str, str] | Iterable[str] | None = None) -> None:
        """Names alone, as they are left after a restart, hide nothing."""
        values = secrets if isinstance(secrets, Mapping) else {}
        self._placeholders = {value: f"{{{{{name}}}}}" for name, value in values.items()}
        self._values = {value.encode(): placeholder.encode() for value, placeholder in self._placeholders.items()}
        # A placeholder that is there already stays whole, also where another value is a part of its name.
        known = {**self._placeholders, **{placeholder: placeholder for placeholder in self._placeholders.values()}}
        self._encoded = {text.encode(): placeholder.encode() for text, placeholder in known.items()}
        self._known = known
        self._texts = re.compile("|".join(map(re.escape, _longest_first(known))))
        self._bytes = re.compile(b"|".join(map(re.escape, _longest_first(self._encoded))))

    def __bool__(self) -> bool:
        return bool(self._placeholders)

    def text(self, text: str, *, cut: bool = False) -> str:
        """``text`` without values. With ``cut``, its end may be the first part of one, which is taken out, too."""
        if not self:
            return text
        if any(value in text for value in self._placeholders):  # mostly not, and looking is fast
            text = self._texts.sub(lambda found: self._known[found[0]], text)
        if not cut:
            return text
        # What is left of a character that was cut in two hides the beginning before it.
        return _without_beginning(text, text.rstrip("\ufffd"), self._placeholders)

    def data(self, data: bytes, *, cut: bool = False) -> bytes:
        """The same for bytes."""
        if not self:
            return data
        if any(value in data for value in self._values):
            data = self._bytes.sub(lambda found: self._encoded[found[0]], data)
        return _without_beginning(data, data, self._values) if cut else data

    def stream(self) -> MaskedStream:
        """The same for bytes that come in pieces."""
        return MaskedStream(self._bytes if self else None, self._encoded)

    def json(self, value: Any) -> Any:
        """``value`` with keys and texts at any depth masked, and numbers whose digits are a value."""
        if not self:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.json(key): self.json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(item) for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._placeholders.get(str(value), value)
        return value


class MaskedStream:
    """Values replaced in a stream: the same as in the whole, however it is cut into pieces."""

    def __init__(self, pattern: re.Pattern[bytes] | None, placeholders: Mapping[bytes, bytes]) -> None:
        self._pattern = pattern
        self._placeholders = placeholders
        self._longest = max(map(len, placeholders), default=0)
        """So many bytes are held back at most."""
        self._left = b""

    def feed(self, piece: bytes) -> bytes:
        """What is certain by now."""
        if self._pattern is None:
            return piece
        text = self._left + piece
        return self._through(text, max(0, len(text) - self._longest + 1))

    def end(self) -> bytes:
        """The rest."""
        return self._through(self._left, len(self._left))

    async def over(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """All of a stream."""
        async for piece in pieces:
            if certain := self.feed(piece):
                yield certain
        if rest := self.end():
            yield rest

    def _through(self, text: bytes, certain: int) -> bytes:
        """Matches that begin before ``certain`` are decided: whatever comes later cannot make them longer."""
        done, at = bytearray(), 0
        for found in self._pattern.finditer(text) if self._pattern is not None else ():
            if found.start() >= certain:
                break
            done += text[at : found.start()] + self._placeholders[found[0]]
            at = found.end()
        kept_from = max(at, certain)
        self._left = text[kept_from:]
        return bytes(done + text[at:kept_from])


def _longest_first(known: Iterable[Any]) -> list[Any]:
    """In case one contains another."""
    return sorted(known, key=len, reverse=True)


def _without_beginning(text: AnyStr, shown: AnyStr, placeholders: Mapping[AnyStr, AnyStr]) -> AnyStr:
    """``shown`` with its end replaced where that is the first part of a value; ``text`` where it is none."""
    for value in _longest_first(placeholders):
        for length in range(min(len(value) - 1, len(shown)), 0, -1):
            if shown.endswith(value[:length]):
                return shown[:-length] + placeholders[value]
    return text
