"""Who a server is to an engine that several servers use: the owner of its containers."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path
from typing import Any

from ..errors import StoreUnavailable

log = logging.getLogger(__name__)
FILE_NAME, PLACE_NAME = "server-id", "server-place.json"


def identity(directory: Path) -> str:
    """The id of the server whose data directory this is: the same at each start, unlike every other server's.

    A directory that was moved keeps it. One that was copied gets a new one, because two servers of one id would take
    each other's desktops for their own left-overs; sessions that are live in the copy are the original's, and end
    there. Raises :class:`StoreUnavailable` when the disk does not take it.
    """
    path, place = directory / FILE_NAME, directory / PLACE_NAME
    here = {"path": str(directory.resolve()), "inode": directory.stat().st_ino}
    try:
        found = path.read_text().strip() if path.exists() else ""
        known = _known(place)
        copied = bool(known) and all(known.get(name) != value for name, value in here.items())
        if copied:
            log.warning("the data directory is a copy of %s: its live sessions stay with that one", known["path"])
        if not found or copied:
            found = uuid.uuid4().hex
            _write(path, found)
        if known != here:
            _write(place, json.dumps(here))
    except OSError as error:
        raise StoreUnavailable("The data directory cannot be written to.", hint=f"Its disk says: {error}.") from error
    return found


def _known(place: Path) -> dict[str, Any]:
    try:
        found = json.loads(place.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) and "path" in found else {}


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a server that is killed meanwhile must not leave an empty id, which others had too."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)
