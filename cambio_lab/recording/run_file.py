"""A run as one file: a zip of JSON Lines and screenshots that standard tools read. See docs/runs.md for its layout.

The same run gives the same bytes everywhere: fixed order, fixed times, nothing compressed (screenshots are already).
A file that is read may be damaged or hostile: sizes are checked before anything is unpacked; nothing is extracted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..errors import BundleRefused
from . import FORMAT, LISTS, SUFFIXES, VERSION, Contents, Json, bounds, dump, schema
from .placeholders import check_sizes
from .rows import check_image

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.sha256"
LARGEST_FILE = 2 * 1024**3
LARGEST_SCREENSHOT = 32 * 1024**2
LARGEST_LIST = 512 * 1024**2
LARGEST_LINE = 96 * 1024**2
MAX_FILES = 100_000
MAX_ROWS = 500_000
MAX_VALUES = 4_000_000
"""JSON values in one line, and in the lines of one file together four times as many."""
MAX_RATIO = 200
_WHEN = (1980, 1, 1, 0, 0, 0)
_NAMES = frozenset({MANIFEST, CHECKSUMS, *(f"{name}.jsonl" for name in LISTS)})
_SCREENSHOT = re.compile(r"pictures/([0-9a-f]{64})\.(png|jpg|webp)")
_MEDIA_TYPES = {suffix: media_type for media_type, suffix in SUFFIXES.items()}
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")
_ENTRY = b"PK\x01\x02"


def pack(contents: Contents, out: IO[bytes]) -> None:
    """Write the run file to ``out``."""
    sums = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _files(contents):
            sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")
            _add(archive, name, data)
        _add(archive, CHECKSUMS, "".join(sums).encode())


def packed(contents: Contents) -> bytes:
    """Return the bytes of the run file."""
    out = io.BytesIO()
    pack(contents, out)
    return out.getvalue()


def save(contents: Contents, path: Path) -> None:
    """Write the run file to ``path``, whole or not at all."""
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


def _files(contents: Contents) -> Iterator[tuple[str, bytes]]:
    yield MANIFEST, dump(contents.manifest).encode() + b"\n"
    for name in LISTS:
        yield f"{name}.jsonl", "".join(f"{dump(row)}\n" for row in contents.lists[name]).encode()
    for digest, media_type in sorted(contents.screenshots.items()):
        data = contents.find(digest)
        if data is not None:
            yield f"pictures/{digest}{SUFFIXES[media_type]}", data


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _WHEN)
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    archive.writestr(entry, data, zipfile.ZIP_STORED)


def unpack(source: Path | bytes) -> Contents:
    """Return the run in a file. :class:`~cambio_lab.errors.BundleRefused` says what is wrong with one it refuses."""
    data = source if isinstance(source, bytes) else _read_file(source)
    if len(data) > LARGEST_FILE:
        raise BundleRefused(f"the file is larger than {LARGEST_FILE} bytes")
    if (count := data.count(_ENTRY)) > 2 * MAX_FILES:  # before the zip's directory is read into memory
        raise BundleRefused(f"the zip has about {count} files; the limit is {MAX_FILES}")
    try:
        return _read(zipfile.ZipFile(io.BytesIO(data)))
    except zipfile.BadZipFile as error:
        raise BundleRefused(f"the file is not a whole zip: {error}", hint="Fetch it again.") from None
    except (zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, OverflowError) as error:
        raise BundleRefused(f"the zip is damaged: {error}") from None
    except (UnicodeError, ValueError, KeyError, OSError) as error:
        raise BundleRefused(f"the zip is damaged: {type(error).__name__}") from None


def _read_file(path: Path) -> bytes:
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise BundleRefused(f"{path.name} is a folder, not a run file")
        if not stat.S_ISREG(facts.st_mode):
            raise BundleRefused(f"{path.name} is not a regular file")
        if facts.st_size > LARGEST_FILE:
            raise BundleRefused(f"{path.name} is larger than {LARGEST_FILE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BundleRefused(f"{path.name} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise BundleRefused("the path of the file is not valid") from None


def _read(archive: zipfile.ZipFile) -> Contents:
    entries = _check_sizes(archive)
    sums = _checksums(_content(archive, entries[CHECKSUMS]))

    def verified(name: str) -> bytes:
        data = _content(archive, entries[name])
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise BundleRefused(f"{name} does not match its checksum")
        return data

    manifest = _manifest(verified(MANIFEST))
    lists = {name: _rows(name, verified(f"{name}.jsonl")) for name in LISTS}
    for name, rows in lists.items():
        count = manifest["counts"].get(name)
        if name != "exchanges" and count != len(rows):
            raise BundleRefused(f"the manifest counts {count} {name}, the file has {len(rows)}")
    check_sizes(lists["exchanges"])
    files, types = {}, {}
    for name in entries:
        if found := _SCREENSHOT.fullmatch(name):
            digest, media_type = found[1], _MEDIA_TYPES["." + found[2]]
            data = verified(name)
            if hashlib.sha256(data).hexdigest() != digest:
                raise BundleRefused(f"{name} is not the screenshot that its name says")
            check_image(data, media_type, name)
            files[digest], types[digest] = entries[name], media_type

    def find(digest: str) -> bytes | None:
        return archive.read(files[digest]) if digest in files else None

    return Contents(manifest=manifest, screenshots=types, find=find, **lists)


def _check_sizes(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Check what the entries claim before a byte is unpacked. Names do not matter: nothing is extracted."""
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise BundleRefused(f"the zip has {len(infos)} files; the limit is {MAX_FILES}")
    for info in infos:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # LZMA allocates what a file says
            raise BundleRefused(f"{info.filename[:100]!r} is compressed in an unknown way")
        largest = LARGEST_SCREENSHOT if _SCREENSHOT.fullmatch(info.filename) else LARGEST_LIST
        if info.file_size > largest:
            raise BundleRefused(f"{info.filename[:100]!r} is larger than {largest} bytes")
        if info.file_size > 1_000_000 and info.file_size > MAX_RATIO * max(1, info.compress_size):
            raise BundleRefused(f"the zip is a bomb: {info.compress_size} bytes unpack to {info.file_size}")
    if sum(info.file_size for info in infos) > LARGEST_FILE:
        raise BundleRefused(f"the zip unpacks to more than {LARGEST_FILE} bytes")
    entries = {info.filename: info for info in infos}
    if missing := sorted(_NAMES - set(entries)):
        kind = "not a recorded run" if MANIFEST in missing else "not whole"
        raise BundleRefused(f"the zip is {kind}: {', '.join(missing)} is missing")
    return entries


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a file's bytes, never more than its entry promised."""
    with archive.open(info) as file:
        data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise BundleRefused(f"{info.filename} does not have the size that the zip says")
    return data


def _checksums(data: bytes) -> dict[str, str]:
    sums: dict[str, str] = {}
    for line in _text(CHECKSUMS, data).splitlines():
        found = _SUM.fullmatch(line)
        if found is None or found[2] in sums:
            raise BundleRefused(f"{CHECKSUMS} is malformed")
        sums[found[2]] = found[1]
    return sums


def _manifest(data: bytes) -> Json:
    manifest = _parse(MANIFEST, _text(MANIFEST, data))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleRefused("the manifest is not that of a recorded run")
    version = manifest.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleRefused("the manifest has no version")
    if version > VERSION:
        hint = "Upgrade cambio_lab."
        raise BundleRefused(f"the run file has version {version}; this cambio_lab reads {VERSION}", hint=hint)
    bounds.check(schema.Manifest, manifest, MANIFEST)
    return manifest


def _rows(name: str, data: bytes) -> list[Json]:
    if (lines := data.count(b"\n")) > MAX_ROWS:
        raise BundleRefused(f"{name}.jsonl has {lines} lines; the limit is {MAX_ROWS}")
    if (values := _values(data)) > 4 * MAX_VALUES:
        raise BundleRefused(f"{name}.jsonl has about {values} values; the limit is {4 * MAX_VALUES}")
    if data and not data.endswith(b"\n"):
        raise BundleRefused(f"{name}.jsonl ends in the middle of a line")
    rows = []
    for number, line in enumerate(_text(name, data).split("\n")[:-1], 1):
        where = f"{name}.jsonl line {number}"
        row = _parse(where, line)
        if not isinstance(row, dict):
            raise BundleRefused(f"{where} is not an object")
        schema.check_row(name, row, where)
        rows.append(row)
    return rows


def _values(data: bytes) -> int:
    """Return an upper bound of the JSON values in ``data``, without parsing it."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BundleRefused(f"{name} is not UTF-8 text") from None


def _parse(where: str, text: str) -> Any:
    if len(text) > LARGEST_LINE or text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        raise BundleRefused(f"{where} is too large; the limits are {LARGEST_LINE} bytes and {MAX_VALUES} values")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise BundleRefused(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise BundleRefused(f"{where} is not JSON: {error}") from None
    bounds.check_json(value, where)
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
