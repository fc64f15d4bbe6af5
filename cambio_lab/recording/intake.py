"""Reads a bundle that may be damaged, foreign or hostile. Everything stays in memory; nothing is ever extracted."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import struct
import zipfile
import zlib
from typing import Any

from ..errors import BundleRefused
from .contents import FORMAT, SUFFIXES, VERSION, Contents, Json

MANIFEST = "manifest.json"
CHECKSUMS = "checksums.sha256"
LISTS = ("events", "messages", "steps", "exchanges", "observations")
LARGEST_FILE = 2 * 1024**3
LARGEST_PICTURE = 32 * 1024**2
LARGEST_LIST = 512 * 1024**2
MOST_FILES = 100_000
MOST_RATIO = 200
LARGEST_SIDE = 20_000
_NAMES = frozenset({MANIFEST, CHECKSUMS, *(f"{name}.jsonl" for name in LISTS)})
_PICTURE = re.compile(r"pictures/([0-9a-f]{64})\.(png|jpg|webp)")
_MEDIA_TYPES = {suffix: media_type for media_type, suffix in SUFFIXES.items()}
_MAGIC = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff", ".webp": b"RIFF"}
_SUM = re.compile(r"([0-9a-f]{64})  (\S+)")
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "events": {"time": (int, float), "kind": str},
    "messages": {"role": str, "content": (list, str)},
    "steps": {"step": int, "tool_use_id": str, "tool": str, "arguments": dict, "status": str, "timing": dict},
    "exchanges": {"number": int, "request": dict, "request_sha256": str, "headers": dict},
    "observations": {"method": str, "arguments": dict, "at": (int, float), "ms": (int, float)},
}


def read(data: bytes) -> Contents:
    """The run in these bytes. :class:`~cambio_lab.errors.BundleRefused` gives the reason of a refusal."""
    if len(data) > LARGEST_FILE:
        raise BundleRefused(f"the file is larger than {LARGEST_FILE} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive, data)
    except zipfile.BadZipFile as error:
        raise BundleRefused(f"the file is not a whole zip: {error}", hint="Fetch it again.") from None
    except (zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, OverflowError, MemoryError) as error:
        raise BundleRefused(f"the zip is damaged: {error}") from None


def _read(archive: zipfile.ZipFile, data: bytes) -> Contents:
    entries = _check_entries(archive, len(data))
    sums = _checksums(_take(archive, entries, CHECKSUMS))
    if set(sums) != set(entries) - {CHECKSUMS}:
        odd = sorted(set(sums) ^ (set(entries) - {CHECKSUMS}))[0]
        raise BundleRefused(f"the checksums and the files do not agree on {odd}")
    manifest = _manifest(_verified(archive, entries, MANIFEST, sums))
    lists = {name: _rows(name, _verified(archive, entries, f"{name}.jsonl", sums)) for name in LISTS}
    pictures: dict[str, str] = {}
    names: dict[str, str] = {}
    for name in entries:
        if found := _PICTURE.fullmatch(name):
            _check_picture(name, found[1], _verified(archive, entries, name, sums))
            pictures[found[1]] = _MEDIA_TYPES["." + found[2]]
            names[found[1]] = name
    _check_counts(manifest, lists)

    def find(digest: str) -> bytes | None:
        if digest not in names:
            return None
        with zipfile.ZipFile(io.BytesIO(data)) as again:
            return again.read(names[digest])

    contents = Contents(manifest=manifest, pictures=pictures, find=find, **lists)
    _ = contents.skeletons  # requests that do not fit together are refused now, not when they are replayed
    return contents


def _check_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Names, kinds and sizes, before a byte is unpacked."""
    infos = archive.infolist()
    if len(infos) > MOST_FILES:
        raise BundleRefused(f"the zip has {len(infos)} files, more than {MOST_FILES}")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        _check_entry(info)
        if info.filename in entries:
            raise BundleRefused(f"{info.filename} is in the zip twice")
        entries[info.filename] = info
    if sum(info.file_size for info in infos) > LARGEST_FILE:
        raise BundleRefused(f"the zip unpacks to more than {LARGEST_FILE} bytes")
    at = 0
    for info in sorted(infos, key=lambda item: item.header_offset):
        if info.header_offset < at:
            raise BundleRefused(f"{info.filename!r} overlaps another file in the zip")
        at = info.header_offset + 30 + len(info.filename.encode()) + info.compress_size
    if at > size:
        raise BundleRefused("the zip says more than the file holds")
    missing = sorted(_NAMES - set(entries))
    if missing:
        kind = "not a recorded run" if MANIFEST in missing else "not whole"
        raise BundleRefused(f"the zip is {kind}: {', '.join(missing)} is missing")
    return entries


def _check_entry(info: zipfile.ZipInfo) -> None:
    name = info.filename
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise BundleRefused(f"{name!r} is a symbolic link")
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise BundleRefused(f"{name!r} is not a regular file")
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
        raise BundleRefused(f"{name!r} points outside the bundle")
    if name not in _NAMES and not _PICTURE.fullmatch(name):
        raise BundleRefused(f"{name!r} does not belong into a bundle")
    if info.flag_bits & 0x1:
        raise BundleRefused(f"{name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleRefused(f"{name} is compressed in an unknown way")
    largest = LARGEST_PICTURE if name.startswith("pictures/") else LARGEST_LIST
    if info.file_size > largest:
        raise BundleRefused(f"{name} is larger than {largest} bytes")
    if info.file_size > 1_000_000 and info.file_size > MOST_RATIO * max(1, info.compress_size):
        raise BundleRefused(f"{name} is a zip bomb: {info.compress_size} bytes unpack to {info.file_size}")


def _take(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    """A file's bytes, never more than its entry promised."""
    info = entries[name]
    with archive.open(info) as file:
        data = file.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise BundleRefused(f"{name} does not have the size that the zip says")
    return data


def _verified(archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo], name: str, sums: dict[str, str]) -> bytes:
    data = _take(archive, entries, name)
    if hashlib.sha256(data).hexdigest() != sums[name]:
        raise BundleRefused(f"{name} does not match its checksum")
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
        raise BundleRefused(f"the bundle has version {version}; this cambio_lab reads {VERSION}", hint="Upgrade it.")
    if not isinstance(manifest.get("session"), dict) or not isinstance(manifest.get("counts"), dict):
        raise BundleRefused("the manifest lacks session or counts")
    return manifest


def _rows(name: str, data: bytes) -> list[Json]:
    rows = []
    for number, line in enumerate(_text(name, data).split("\n")[:-1], 1):
        row = _parse(f"{name}.jsonl line {number}", line)
        if not isinstance(row, dict):
            raise BundleRefused(f"{name}.jsonl line {number} is not an object")
        for field, kind in _FIELDS[name].items():
            if not isinstance(row.get(field), kind) or isinstance(row.get(field), bool):
                raise BundleRefused(f"{name}.jsonl line {number}: {field} is missing or wrong")
        rows.append(row)
    if data and not data.endswith(b"\n"):
        raise BundleRefused(f"{name}.jsonl ends in the middle of a line")
    return rows


def _check_counts(manifest: Json, lists: dict[str, list[Json]]) -> None:
    for name, rows in lists.items():
        count = manifest["counts"].get(name)
        if name != "exchanges" and count != len(rows):
            raise BundleRefused(f"the manifest counts {count} {name}, the file has {len(rows)}")


def _check_picture(name: str, digest: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleRefused(f"{name} is not the picture that its name says")
    suffix = name[name.rindex(".") :]
    if not data.startswith(_MAGIC[suffix]):
        raise BundleRefused(f"{name} is not a {suffix[1:]} picture")
    if suffix == ".png":
        if len(data) < 33 or data[12:16] != b"IHDR":
            raise BundleRefused(f"{name} is not a whole png picture")
        width, height = struct.unpack(">II", data[16:24])
        if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
            raise BundleRefused(f"{name} claims {width}x{height} pixels")


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise BundleRefused(f"{name} is not UTF-8 text") from None


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise BundleRefused(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise BundleRefused(f"{where} is not JSON: {error}") from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")
