"""One run as one file: a zip of JSON Lines and pictures that standard tools read. See docs/runs.md for its layout.

The same run gives the same bytes everywhere: fixed order, fixed times, nothing compressed (pictures are already).
A file that comes in is believed nothing: see :mod:`.intake`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from ..errors import BundleRefused
from .contents import SUFFIXES, Contents, Json, dump
from .intake import CHECKSUMS, LISTS, MANIFEST, read

__all__ = ["pack", "save", "unpack"]
_WHEN = (1980, 1, 1, 0, 0, 0)


def pack(contents: Contents, out: IO[bytes]) -> None:
    """Write the bundle to ``out``."""
    sums = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _files(contents):
            sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
            _add(archive, name, data)
        _add(archive, CHECKSUMS, "".join(sums).encode())


def save(contents: Contents, path: Path) -> None:
    """Write the bundle to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as out:
            pack(contents, out)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def unpack(source: Path | bytes) -> Contents:
    """The run in a bundle. :class:`~cambio_lab.errors.BundleRefused` says what is wrong with one that is refused."""
    if isinstance(source, bytes):
        return read(source)
    try:
        data = source.read_bytes()
    except IsADirectoryError:
        raise BundleRefused(f"{source.name} is a folder, not a bundle") from None
    except OSError as error:
        raise BundleRefused(f"{source.name} cannot be read: {error.strerror}") from None
    return read(data)


def _files(contents: Contents) -> Iterator[tuple[str, bytes]]:
    yield MANIFEST, dump(contents.manifest).encode() + b"\n"
    for name in LISTS:
        yield f"{name}.jsonl", _lines(getattr(contents, name))
    for digest, media_type in sorted(contents.pictures.items()):
        data = contents.find(digest)
        if data is not None:
            yield f"pictures/{digest}{SUFFIXES[media_type]}", data


def _lines(rows: list[Json]) -> bytes:
    return "".join(f"{dump(row)}\n" for row in rows).encode()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, data, zipfile.ZIP_STORED)
