"""Which recording a session of this kernel is bound to."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "CAMBIO_LAB_RECORDINGS"
"""``cambio-lab replay`` sets it: path and first part of the name of each session's recording, in order."""
MODE = "CAMBIO_LAB_RECORD"
_numbers = itertools.count(1)


def bound(config: Mapping[str, Any], *, loopback: bool) -> dict[str, Any]:
    """``config`` with its recording as the server must know it.

    A relative ``record`` is meant from the kernel's folder; a server on this machine is told the whole path. Without
    one, a notebook that is being recorded or replayed gives its sessions one file each, in the order of creation.
    """
    result = dict(config)
    prefix = os.environ.get(FOLDER)
    if not result.get("record") and prefix:
        result["record"] = f"{prefix}-{next(_numbers)}.cambio"
    if result.get("record"):
        if loopback:
            result["record"] = str(Path(str(result["record"])).absolute())
        if os.environ.get(MODE):
            result.setdefault("record_mode", os.environ[MODE])
    return result
