"""More than forty broken, foreign and hostile bundles: each is refused with its reason, none writes anything."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.errors import BundleRefused
from cambio_lab.recording import LISTS, Contents
from cambio_lab.recording.run_file import pack
from cambio_lab.reports import Run

Files = dict[str, bytes]


def png(width: int = 2, height: int = 2) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (width, height), "#336699").save(out, "PNG")
    return out.getvalue()


SCREENSHOT = png()
DIGEST = hashlib.sha256(SCREENSHOT).hexdigest()
SCREENSHOT_NAME = f"pictures/{DIGEST}.png"


def contents() -> Contents:
    """A small run that is in order."""
    step = {"step": 1, "tool_use_id": "t1", "tool": "screenshot", "toolset": "computer", "arguments": {}}
    step |= {"status": "completed", "started_at": 1.0, "ended_at": 2.0, "text": "", "timing": {"total": 5.0}}
    request = {"base": None, "prefix": 0, "suffix": 0, "middle": '{"model":"demo","messages":[]}'}
    counts = {"events": 1, "messages": 1, "steps": 1, "exchanges": 1, "observations": 1}
    manifest = {"format": "cambio-run", "version": 1, "session": {"id": "s", "name": "n"}, "counts": counts}
    return Contents(
        manifest={**manifest, "model": "demo", "usage": {}, "complete": True},
        events=[{"time": 1.0, "sequence": 1, "kind": "UserMessage", "content": "hi", "metadata": {}}],
        messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        steps=[{**step, "sha256": DIGEST, "media_type": "image/png", "width": 2, "height": 2}],
        exchanges=[{"number": 1, "request": request, "request_sha256": "0", "headers": {}, "response": ""}],
        observations=[{"step": 1, "method": "screenshot", "arguments": {}, "at": 1.5, "ms": 1.0, "result": {}}],
        screenshots={DIGEST: "image/png"},
        find={DIGEST: SCREENSHOT}.get,
    )


def good() -> bytes:
    out = io.BytesIO()
    pack(contents(), out)
    return out.getvalue()


def files() -> Files:
    with zipfile.ZipFile(io.BytesIO(good())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(found: Files, *, sums: bool = True, compress: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these files, its checksums made again unless the test is about them."""
    found = dict(found)
    if sums:
        rest = {name: data for name, data in found.items() if name != "checksums.sha256"}
        lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in rest.items()]
        found["checksums.sha256"] = "".join(lines).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as archive:
        for name, data in found.items():
            archive.writestr(name, data)
    return out.getvalue()


def changed(**updates: bytes | None) -> bytes:
    """The good bundle with files replaced (``steps`` means ``steps.jsonl``) or, with ``None``, left out."""
    found = files()
    for key, data in updates.items():
        name = f"{key}.jsonl" if key in LISTS else {"manifest": "manifest.json", "sums": "checksums.sha256"}[key]
        if data is None:
            del found[name]
        else:
            found[name] = data
    return zipped(found, sums="sums" not in updates)


def with_file(name: str, data: bytes = b"x") -> bytes:
    return zipped({**files(), name: data})


def manifest(**updates: Any) -> bytes:
    return changed(manifest=json.dumps({**contents().manifest, **updates}).encode())


def line(name: str, **updates: Any) -> bytes:
    row = {key: value for key, value in {**getattr(contents(), name)[0], **updates}.items() if value != "LEFT OUT"}
    return changed(**{name: json.dumps(row).encode() + b"\n"})


def patched(data: bytes, find: bytes, replace: bytes, count: int = -1) -> bytes:
    assert find in data
    return data.replace(find, replace, count)


def lying_size() -> bytes:
    """The central directory says that a screenshot is tiny."""
    data = bytearray(good())
    at = data.rindex(SCREENSHOT_NAME.encode()) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    struct.pack_into("<I", data, at + 24, 1)
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(good())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<H", data, at + 8, 1)
    return bytes(data)


def flipped() -> bytes:
    data = bytearray(good())
    at = data.index(b'"UserMessage"') + 3
    data[at] ^= 0x20
    return bytes(data)


def huge_png() -> bytes:
    data = bytearray(SCREENSHOT)
    struct.pack_into(">II", data, 16, 100_000, 100_000)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    digest = hashlib.sha256(data).hexdigest()
    return with_file(f"pictures/{digest}.png", bytes(data))


def deep() -> bytes:
    return changed(events=b'{"time":1,"kind":"x","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "not a whole zip"),
    "text": (lambda: b"hello, I am a run", "not a whole zip"),
    "another zip": (lambda: zipped({"readme.txt": b"hi"}, sums=False), "not a recorded run"),
    "empty zip": (lambda: zipped({}, sums=False), "not a recorded run"),
    "truncated": (lambda: good()[:-200], "not a whole zip"),
    "half": (lambda: good()[: len(good()) // 2], "not a whole zip"),
    "beginning cut off": (lambda: good()[100:], "zip|magic"),
    "a flipped bit": (flipped, "CRC|checksum|damaged"),
    "no manifest": (lambda: changed(manifest=None), "manifest.json is missing"),
    "no steps": (lambda: changed(steps=None), "steps.jsonl is missing"),
    "no checksums": (lambda: zipped({k: v for k, v in files().items() if "sha256" not in k}, sums=False), "missing"),
    "checksums malformed": (lambda: changed(sums=b"what\n"), "malformed"),
    "checksums of less": (lambda: changed(sums=files()["checksums.sha256"].split(b"\n")[0] + b"\n"), "does not match"),
    "wrong checksum": (
        lambda: changed(sums=patched(files()["checksums.sha256"], files()["checksums.sha256"][:8], b"00000000", 1)),
        "does not match its checksum",
    ),
    "checksum twice": (lambda: changed(sums=files()["checksums.sha256"] * 2), "malformed"),
    "foreign manifest": (lambda: manifest(format="something else"), "not that of a recorded run"),
    "manifest is a list": (lambda: changed(manifest=b"[]"), "not that of a recorded run"),
    "manifest is not JSON": (lambda: changed(manifest=b"{"), "not JSON"),
    "a newer version": (lambda: manifest(version=99), "version 99"),
    "no version": (lambda: manifest(version="1"), "no version"),
    "wrong count": (lambda: manifest(counts={**contents().manifest["counts"], "steps": 7}), "counts 7 steps"),
    "encrypted": (encrypted, "encrypted"),
    "unknown compression": (lambda: zipped(files(), compress=zipfile.ZIP_LZMA), "unknown way"),
    "bomb": (
        lambda: zipped({**files(), "events.jsonl": b" " * 30_000_000}, compress=zipfile.ZIP_DEFLATED),
        "bomb",
    ),
    "a size that lies": (lying_size, "size|damaged|CRC|checksum|zip"),
    "screenshot with another content": (
        lambda: with_file(f"pictures/{'0' * 64}.png", SCREENSHOT),
        "not the screenshot",
    ),
    "text named as a screenshot": (
        lambda: with_file(f"pictures/{hashlib.sha256(b'hello').hexdigest()}.png", b"hello"),
        "not a png",
    ),
    "script named as a screenshot": (
        lambda: with_file(f"pictures/{hashlib.sha256(b'<svg/>').hexdigest()}.jpg", b"<svg/>"),
        "not a jpg",
    ),
    "screenshot of 10 gigapixels": (huge_png, "too many pixels|100000x100000"),
    "line is not JSON": (lambda: changed(events=b"{\n"), "events line 1|not JSON"),
    "line is not an object": (lambda: changed(steps=b"[1]\n"), "not an object"),
    "half a line": (lambda: changed(steps=files()["steps.jsonl"][:-1]), "middle of a line|counts"),
    "not UTF-8": (lambda: changed(messages=b"\xff\xfe\n"), "not UTF-8"),
    "not a number": (lambda: changed(events=b'{"time":NaN,"kind":"x"}\n'), "NaN"),
    "nested too deeply": (deep, "too deeply"),
    "step without a tool": (lambda: line("steps", tool="LEFT OUT"), "tool is missing or wrong"),
    "step that is a truth": (lambda: line("steps", step=True), "step is missing or wrong"),
    "call without a result": (lambda: line("observations", result="LEFT OUT"), "a result or an error"),
    "call with a result that is null": (
        lambda: line("observations", result=None, error={"type": "ActionError", "message": "", "hint": ""}),
        "a result or an error",
    ),
    "call of a client that failed": (
        lambda: line(
            "observations", by="client", result="LEFT OUT", error={"type": "ActionError", "message": "", "hint": ""}
        ),
        "only the agent's calls fail",
    ),
    "event without a time": (lambda: line("events", time="now"), "time is missing or wrong"),
    "request that fits nothing": (
        lambda: line("exchanges", request={"base": 7, "prefix": 0, "suffix": 0, "middle": ""}),
        "builds on request 7",
    ),
    "request longer than its base": (
        lambda: line("exchanges", request={"base": None, "prefix": 5, "suffix": 0, "middle": ""}),
        "does not fit",
    ),
    "request malformed": (lambda: line("exchanges", request={"base": None}), "request.prefix is missing"),
}


def test_the_good_one_is_read() -> None:
    run = Run.load(good())
    assert run.prompts == ["hi"] and run.screenshot(1) == SCREENSHOT and run.rows[0]["total_ms"] == 5.0
    assert Run.load(zipped(files(), compress=zipfile.ZIP_DEFLATED)) == run  # repacked with a standard tool


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "pictures/../../evil.txt", "run.sh", "pictures/"])
def test_other_files_are_ignored_and_nothing_is_extracted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    run = Run.load(with_file(name))
    assert run == Run.load(good()) and run.to_html()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", inside]
    with zipfile.ZipFile(run.save("again.cambio")) as archive:
        assert name not in archive.namelist()


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = BAD[name]
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    path = inside / "bad.cambio"
    path.write_bytes(make())
    with pytest.raises(BundleRefused, match=reason):
        Run.load(path)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", inside, path]


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused, match="is a folder"):
        Run.load(tmp_path)
    with pytest.raises(BundleRefused, match="cannot be read"):
        Run.load(tmp_path / "missing.cambio")
