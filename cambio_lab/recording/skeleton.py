"""A request body without its pictures: small, comparable, and the body again to the byte.

A conversation is sent anew with every request, so a record of whole bodies would grow with the square of its length.
Two steps make it small: picture data is replaced by its digest (``\\x01`` + 64 hex digits: no raw control character
can occur in JSON), and of the rest only what differs from the request before is kept.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import BundleRefused

MARK = b"\x01"
_DATA = b'"data":"'
_SHORTEST = 64  # characters of base64 that are worth a digest
_PNG = b"iVBORw0KGgo"  # a PNG's signature in base64
_REMEMBERED = 512  # pictures whose digest is known; a conversation sends fewer
_TAIL = 64  # base64 of the last 48 bytes: both checksums and the end chunk
_PICTURE = re.compile(rb"\x01([0-9a-f]{64})")
FindPicture = Callable[[str], bytes | None]
"""A picture's bytes by digest, or ``None``."""


class Skeletons:
    """Makes skeletons. A history is sent again and again, so what was made of each piece of it is remembered."""

    def __init__(self) -> None:
        self._pieces: dict[int, tuple[bytes, bytes | None]] = {}
        self._known: dict[tuple[int, bytes, bytes], bytes] = {}

    def make(self, body: Sequence[bytes]) -> bytes:
        """The body with every picture as a digest; the same bytes when it holds a control character (not JSON).

        ``body`` is in pieces, none of which ends inside a picture; those that are the very objects of the request
        before cost nothing.
        """
        pieces = {}
        for piece in body:
            known = self._pieces.get(id(piece))
            pieces[id(piece)] = known if known is not None and known[0] is piece else (piece, self._piece(piece))
        self._pieces = pieces
        made = [skeleton for piece in body if (skeleton := pieces[id(piece)][1]) is not None]
        return b"".join(made if len(made) == len(body) else body)

    def _piece(self, body: bytes) -> bytes | None:
        """A piece's skeleton, or ``None`` when it holds a control character."""
        parts, at = [], 0
        while (found := body.find(_DATA, at)) >= 0:
            start = found + len(_DATA)
            end = body.find(b'"', start)
            if end < 0:
                break
            parts.append(body[at:start])
            parts.append(self._digest(body, start, end))
            at = end
        parts.append(body[at:])
        return None if any(MARK in text for text in parts[::2]) else b"".join(parts)

    def _digest(self, body: bytes, start: int, end: int) -> bytes:
        if end - start < _SHORTEST:
            return body[start:end]
        key = _fingerprint(body, start, end)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = _decoded_digest(body[start:end])
        return self._known[key] or body[start:end]


def _fingerprint(body: bytes, start: int, end: int) -> tuple[int, bytes, bytes]:
    """What tells one picture from another without reading all of it in every request.

    A PNG ends in two checksums of its content (Adler-32 and CRC-32), so its ends and its length are enough.
    """
    head = body[start : start + _SHORTEST]
    if head.startswith(_PNG):
        return end - start, head, body[end - _TAIL : end]
    return end - start, head, hashlib.sha256(body[start:end]).digest()


def _decoded_digest(text: bytes) -> bytes:
    """``\\x01`` and the digest of what the base64 stands for; empty when it would not come back to the byte."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    if base64.b64encode(data) != text:
        return b""
    return MARK + hashlib.sha256(data).hexdigest().encode()


def pictures(skeleton: bytes) -> list[str]:
    """Digests in order, with repetitions."""
    return [digest.decode() for digest in _PICTURE.findall(skeleton)]


def expand(skeleton: bytes, find: FindPicture) -> bytes:
    """The body again. :class:`~cambio_lab.errors.BundleRefused` when a picture is not there."""

    def fill(match: re.Match[bytes]) -> bytes:
        data = find(match[1].decode())
        if data is None:
            raise BundleRefused(f"the picture {match[1].decode()[:12]}… is missing")
        return base64.b64encode(data)

    return _PICTURE.sub(fill, skeleton)


def difference(base: int | None, before: bytes, after: bytes) -> dict[str, Any]:
    """``after`` as what it shares with ``before`` (exchange number ``base``) at both ends and the text between."""
    prefix = _shared(before, after)
    room = min(len(before), len(after)) - prefix
    suffix = _shared(before[len(before) - room :], after[len(after) - room :], at_end=True)
    # never inside a character: the middle is text
    while prefix and _continues(after, prefix):
        prefix -= 1
    while suffix and _continues(after, len(after) - suffix):
        suffix -= 1
    middle = after[prefix : len(after) - suffix]
    return {"base": base, "prefix": prefix, "suffix": suffix, "middle": middle.decode()}


def _shared(one: bytes, other: bytes, *, at_end: bool = False) -> int:
    """How many bytes are equal at the start (or end): halving, so that the comparing is done in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        same = one[len(one) - middle :] == other[len(other) - middle :] if at_end else one[:middle] == other[:middle]
        low, high = (middle, high) if same else (low, middle - 1)
    return low


def _continues(text: bytes, at: int) -> bool:
    return at < len(text) and text[at] & 0xC0 == 0x80


def apply(before: bytes, change: dict[str, Any]) -> bytes:
    """The other way: ``after`` from ``before`` and :func:`difference`."""
    prefix, suffix, middle = change.get("prefix"), change.get("suffix"), change.get("middle")
    if not isinstance(prefix, int) or not isinstance(suffix, int) or not isinstance(middle, str):
        raise BundleRefused("a recorded request is malformed")
    if not 0 <= prefix <= len(before) or not 0 <= suffix <= len(before):
        raise BundleRefused("a recorded request does not fit the one before it")
    end = before[len(before) - suffix :] if suffix else b""
    return before[:prefix] + middle.encode() + end


def encode(change: dict[str, Any]) -> bytes:
    return json.dumps(change, separators=(",", ":")).encode()
