"""Who a server is to an engine that several servers use: the owner of its containers."""

from __future__ import annotations

import uuid
from pathlib import Path

from ..errors import StoreUnavailable

FILE_NAME = "server-id"


def identity(directory: Path) -> str:
    """Return the id of the server whose data directory this is, the same at each start.

    A copy of the directory has the same id: start a server on one of the two only, or delete ``server-id`` in the
    copy. Raises :class:`StoreUnavailable` when the disk does not take it.
    """
    path = directory / FILE_NAME
    try:
        found = path.read_text().strip() if path.exists() else ""
        if not found:
            found = uuid.uuid4().hex
            new = path.with_name(f"{path.name}.new")  # whole or not at all: a killed server must leave no empty id
            new.write_text(found)
            new.replace(path)
    except OSError as error:
        raise StoreUnavailable("The data directory cannot be written to.", hint=f"Its disk says: {error}.") from error
    return found
