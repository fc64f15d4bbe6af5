"""Values of secrets taken out of text, bytes, streams of bytes and JSON: each becomes its placeholder ``{{NAME}}``.

A value is found as it was given, in UTF-8, wherever it stands whole. What a program made of it (folded lines, base64,
another encoding, a part of it) is not recognised.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, AnyStr

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
