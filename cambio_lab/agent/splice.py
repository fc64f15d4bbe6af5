"""A request's messages as prepared bytes, and their digest, both at the cost of what is new."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2

PIECES = "cambio_lab.pieces"
"""The extension of a request that holds its body as it was prepared, for transports that need not join megabytes."""


class PrefixDigest:
    """SHA-256 of growing sequences of chunks: chunks that were there last time are not hashed again."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._states: list[hashlib._Hash] = []

    def digest(self, chunks: Sequence[bytes]) -> str:
        """The hex digest of all chunks together. Chunks are compared by identity, except the first, short one."""
        known = 0
        for old, new in zip(self._chunks, chunks, strict=False):
            if old is not new and not (known == 0 and old == new):
                break
            known += 1
        del self._chunks[known:], self._states[known:]
        state = self._states[-1].copy() if self._states else hashlib.sha256()
        for chunk in chunks[known:]:
            state.update(chunk)
            self._chunks.append(chunk)
            self._states.append(state.copy())
        return state.hexdigest()


@dataclass(frozen=True, slots=True)
class Body:
    """``messages`` are the JSON of one message each; ``images`` is how many pictures they hold."""

    messages: Sequence[bytes]
    images: int
    hasher: PrefixDigest

    def assemble(self, head: bytes, tail: bytes) -> tuple[Chunks, str]:
        """The whole request body and its SHA-256: ``head``, the messages as a JSON array, ``tail``."""
        chunks = [head + b"["]
        for index, message in enumerate(self.messages):
            if index:
                chunks.append(COMMA)
            chunks.append(message)
        chunks.append(b"]" + tail)
        return Chunks(chunks), self.hasher.digest(chunks)


COMMA = b","
PIECE = 64 * 1024


async def pieces_of(request: httpx2.Request) -> Sequence[bytes]:
    """A request's body, in the pieces it was made of (the same objects from one request to the next) or in one."""
    pieces: Sequence[bytes] | None = request.extensions.get(PIECES)
    return (await request.aread(),) if pieces is None else pieces


class Chunks:
    """A body that is sent piece by piece, so that its headers leave before its megabytes are copied once more."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.pieces = chunks
        self.size = sum(map(len, chunks))

    def __bytes__(self) -> bytes:
        return b"".join(self.pieces)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        small: list[bytes] = []
        waiting = 0
        for chunk in self.pieces:
            small.append(chunk)
            waiting += len(chunk)
            if waiting >= PIECE:
                yield b"".join(small) if len(small) > 1 else chunk
                small, waiting = [], 0
        if small:
            yield b"".join(small)
