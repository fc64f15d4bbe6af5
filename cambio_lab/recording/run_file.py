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
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import Field

from ..errors import BundleRefused
from . import FORMAT, LISTS, SUFFIXES, VERSION, Contents, Json, dump
from .placeholders import check_sizes
from .rows import check_image
from .schema import Count, Name, Number, Options, Side, Strict, Time, UsageModel, check, check_row

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.sha256"
LARGEST_FILE = 2 * 1024**3
LARGEST_SCREENSHOT, LARGEST_LINE, LARGEST_LIST = 32 * 1024**2, 96 * 1024**2, 512 * 1024**2
MAX_FILES, MAX_ROWS = 100_000, 500_000
MAX_VALUES = 4_000_000
"""JSON values in one line, and in the lines of one file together four times as many."""
MAX_RATIO = 200
_NAMES = frozenset({MANIFEST, CHECKSUMS, *(f"{name}.jsonl" for name in LISTS)})
_SCREENSHOT = re.compile(r"pictures/([0-9a-f]{64})\.(png|jpg|webp)")
_MEDIA_TYPES = {suffix: media_type for media_type, suffix in SUFFIXES.items()}
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")


class SessionFacts(Strict):
    id: Name
    name: Name
    status: Name = ""
    created_at: Time | None = None
    ended_at: Time | None = None
    end_reason: Name | None = None


class DesktopFacts(Strict):
    kind: Name | None = None
    display: list[Annotated[Side, Field(ge=1)]] = Field(default=[1280, 800], min_length=2, max_length=2)
    image_digest: Name | None = None
    isolated: bool | None = None
    browser: bool | None = None


class Environment(Strict):
    cambio_lab: Name = ""
    anthropic: Name = ""
    options: Options | None = None  # type: ignore[valid-type]
    approval: Name | Annotated[list[Name], Field(max_length=100)] | None = None
    desktop: DesktopFacts | None = None
    image: Name | None = None
    experiment: Json | None = None


class Manifest(Strict):
    format: Literal["cambio-run"]
    version: Literal[1]
    session: SessionFacts
    environment: Environment = Environment()
    restarts: list[Environment] = Field(default=[])
    model: Name = ""
    config: Json = Field(default={})
    desktop: DesktopFacts = DesktopFacts()
    request: Json = Field(default={})
    usage: UsageModel | dict[Name, Number] = Field(default={})  # type: ignore[valid-type]
    counts: dict[Literal[LISTS], Count]  # type: ignore[valid-type]
    complete: bool = False


def pack(contents: Contents, out: IO[bytes]) -> None:
    """Write the run file to ``out``."""
    sums: list[str] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes) -> None:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_STORED)
            sums.append(f"{hashlib.sha256(data).hexdigest()}  {name}\n")

        add(MANIFEST, dump(contents.manifest).encode() + b"\n")
        for name, rows in contents.lists.items():
            add(f"{name}.jsonl", "".join(f"{dump(row)}\n" for row in rows).encode())
        for digest, media_type in sorted(contents.screenshots.items()):
            if (data := contents.find(digest)) is not None:
                add(f"pictures/{digest}{SUFFIXES[media_type]}", data)
        add(CHECKSUMS, "".join(sums).encode())


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
    finally:
        temporary.unlink(missing_ok=True)


def unpack(source: Path | bytes) -> Contents:
    """Return the run in a file. :class:`~cambio_lab.errors.BundleRefused` says what is wrong with one it refuses."""
    data = source if isinstance(source, bytes) else _read_file(source)
    if len(data) > LARGEST_FILE:
        raise BundleRefused(f"the file is larger than {LARGEST_FILE} bytes")
    if (count := data.count(b"PK\x01\x02")) > 2 * MAX_FILES:  # before the zip's directory is read into memory
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
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder, not a run file" if stat.S_ISDIR(facts.st_mode) else "not a regular file"
            raise BundleRefused(f"{path.name} is {kind}")
        if facts.st_size > LARGEST_FILE:
            raise BundleRefused(f"{path.name} is larger than {LARGEST_FILE} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BundleRefused(f"{path.name} cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise BundleRefused("the path of the file is not valid") from None


def _read(archive: zipfile.ZipFile) -> Contents:
    entries = _check_sizes(archive)
    lines = _text(CHECKSUMS, _content(archive, entries[CHECKSUMS])).splitlines()
    sums = {found[2]: found[1] for line in lines if (found := _SUM.fullmatch(line))}
    if len(sums) != len(lines):
        raise BundleRefused(f"{CHECKSUMS} is malformed")

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
    check(Manifest, manifest, MANIFEST)
    return manifest


def _rows(name: str, data: bytes) -> list[Json]:
    if (lines := data.count(b"\n")) > MAX_ROWS:
        raise BundleRefused(f"{name}.jsonl has {lines} lines; the limit is {MAX_ROWS}")
    if (values := data.count(b",") + data.count(b"[") + data.count(b"{")) > 4 * MAX_VALUES:  # an upper bound
        raise BundleRefused(f"{name}.jsonl has about {values} values; the limit is {4 * MAX_VALUES}")
    if data and not data.endswith(b"\n"):
        raise BundleRefused(f"{name}.jsonl ends in the middle of a line")
    rows = []
    for number, line in enumerate(_text(name, data).split("\n")[:-1], 1):
        where = f"{name}.jsonl line {number}"
        row = _parse(where, line)
        if not isinstance(row, dict):
            raise BundleRefused(f"{where} is not an object")
        check_row(name, row, where)
        rows.append(row)
    return rows


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BundleRefused(f"{name} is not UTF-8 text") from None


def _parse(where: str, text: str) -> Any:
    if len(text) > LARGEST_LINE or text.count(",") + text.count("[") + text.count("{") > MAX_VALUES:
        raise BundleRefused(f"{where} is too large; the limits are {LARGEST_LINE} bytes and {MAX_VALUES} values")

    def no_constant(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")

    try:
        value = json.loads(text, parse_constant=no_constant)
    except RecursionError:
        raise BundleRefused(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise BundleRefused(f"{where} is not JSON: {error}") from None
    check_json(value, where)
    return value


def check_json(value: Any, where: str) -> None:
    """Refuse nesting below 64 levels, numbers that are not finite or too large, and text that is not Unicode."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > 64:
            raise BundleRefused(f"{where} is nested too deeply; the limit is 64 levels")
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError:
                raise BundleRefused(f"{where} has text that is not valid Unicode") from None
        elif isinstance(item, dict):
            waiting.extend((part, depth + 1) for part in [*item, *item.values()])
        elif isinstance(item, list):
            waiting.extend((part, depth + 1) for part in item)
        elif isinstance(item, int | float) and not abs(item) <= 1e300:
            raise BundleRefused(f"{where} has a number that is too large")
