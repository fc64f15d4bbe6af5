"""What lives in a notebook: panels, turns shown in cells, magics. A client of the API like any other."""

from __future__ import annotations

import sys
from typing import Any

_installed: list[object] = []


def install(shell: Any = None) -> None:
    """Show turns, sessions and panels in the running IPython; do nothing in a plain script. May be called again."""
    if shell is None:
        module = sys.modules.get("IPython")
        shell = module.get_ipython() if module is not None else None
    if shell is None or shell in _installed:
        return
    from .host import install as install_host

    _installed.append(shell)
    install_host(shell)
