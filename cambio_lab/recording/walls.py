"""Experiments as the sidebar shows them: records in Jupyter's runtime folder, tags and notes in the experiment's own.

The process that runs an experiment writes its record; the server of the same user reads it. A change of tags or note is
a line that either appends to ``notes.jsonl``; the last line of a cell counts.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, RunError

Json = dict[str, Any]
KEPT = 20
"""Records; the oldest are deleted first."""
STALE_SECONDS = 30.0
"""A record that says "running" and is older than this was left by a process that is gone."""
LARGEST = 64 * 1024**2
MOST_TAGS, LONGEST_TAG, LONGEST_NOTE = 20, 60, 2_000
NOTES = "notes.jsonl"
_ID = re.compile(r"[0-9a-f]{32}")
_RUN = re.compile(r"[^/\\\0]{1,200}\.cambio")


def folder() -> Path:
    """Return the folder of the records, which is the user's alone."""
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir()) / "cambio-lab-experiments"


def publish(record: Json) -> None:
    """Write the record of one experiment, named by its ``id``."""
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = place / f"{record['id']}.json"
    new = target.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(record, separators=(",", ":")), encoding="utf-8")
    new.replace(target)
    for path in _by_age(place)[KEPT:]:
        path.unlink(missing_ok=True)


def listed() -> list[Json]:
    """Return all records without their cells and desktops, newest first."""
    found = [_read(path) for path in _by_age(folder())]
    return [{name: value for name, value in one.items() if name not in ("cells", "live")} for one in found if one]


def load(identity: str) -> Json:
    """Return a record, each cell with its ``tags`` and ``note``. :class:`RunError` when there is none."""
    path = folder() / f"{identity}.json"
    found = _read(path) if _ID.fullmatch(identity) else None
    if found is None:
        raise RunError("There is no such experiment.")
    said = notes(Path(found["directory"]))
    return {**found, "cells": [{**cell, **said.get(cell["id"], {"tags": [], "note": ""})} for cell in found["cells"]]}


def run_file(identity: str, name: str) -> Path:
    """Return the path of a cell's run file. :class:`RunError` when the record names none such."""
    found = load(identity)
    if not _RUN.fullmatch(name) or all(cell["run"] != name for cell in found["cells"]):
        raise RunError("This experiment has no such run.")
    return Path(found["directory"]) / "runs" / name


def notes(directory: Path) -> dict[str, Json]:
    """Return ``{"tags": [...], "note": "..."}`` of every cell that has any, by cell id."""
    try:
        lines = (directory / NOTES).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        try:
            said = json.loads(line)
            found[str(said["cell"])] = {"tags": [str(tag) for tag in said["tags"]], "note": str(said["note"])}
        except (ValueError, TypeError, KeyError):
            continue  # cut off by a full disk
    return found


def annotate(directory: Path, cell: str, tags: Sequence[str] | None, note: str | None) -> Json:
    """Change tags or note of a cell; ``None`` leaves them. :class:`InvalidRequest` when there are too many."""
    now = notes(directory).get(cell, {"tags": [], "note": ""})
    now = {
        "tags": now["tags"] if tags is None else check_tags(tags),
        "note": now["note"] if note is None else note,
    }
    if len(now["note"]) > LONGEST_NOTE:
        raise InvalidRequest(f"A note has at most {LONGEST_NOTE} characters.")
    line = json.dumps({"cell": cell, **now}, ensure_ascii=False) + "\n"
    with (directory / NOTES).open("a", encoding="utf-8") as file:
        file.write(line)
    return now


def check_tags(tags: Sequence[str]) -> list[str]:
    """Return the tags in order, each once. :class:`InvalidRequest` names what is wrong."""
    found = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    if len(found) > MOST_TAGS or any(len(tag) > LONGEST_TAG or not tag.isprintable() or "," in tag for tag in found):
        hint = f"At most {MOST_TAGS}, each at most {LONGEST_TAG} characters without commas."
        raise InvalidRequest("These are no tags.", hint=hint)
    return found


def _by_age(place: Path) -> list[Path]:
    """Return the records, newest first; another process may delete one meanwhile."""
    dated = []
    for path in place.glob("*.json"):
        try:
            dated.append((path.stat().st_mtime, path))
        except OSError:
            continue
    return [path for _, path in sorted(dated, reverse=True)]


def _read(path: Path) -> Json | None:
    """Return a record that is whole, and whose experiment is still there."""
    try:
        facts = path.stat()
        if facts.st_size > LARGEST:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        if not Path(found["directory"]).is_dir():
            return None
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if not found["ended"] and time.time() - facts.st_mtime > STALE_SECONDS:
        found |= {"ended": "interrupted", "live": []}
    return dict(found)
