"""Where are we running: a Jupyter kernel, an IPython terminal, a plain script?"""

from __future__ import annotations

import sys
from typing import Any


def ipython() -> Any:
    """The running IPython shell, or ``None``. IPython is not imported for it."""
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None else None


def in_kernel() -> bool:
    """True where outputs can be rich and updated."""
    shell = ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


def show(content: dict[str, Any]) -> Any:
    """Display a mimebundle; returns a handle whose ``update(bundle, raw=True)`` replaces it."""
    from IPython.display import display

    return display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]


def show_bundle(found: Any) -> None:
    """Display what a ``_repr_mimebundle_`` returned: data, or data and metadata."""
    from IPython.display import display

    data, metadata = found if isinstance(found, tuple) else (found, None)
    display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]


def show_object(value: Any) -> None:
    """Display an object as a cell's last value would be."""
    from IPython.display import display

    display(value)  # type: ignore[no-untyped-call]


def execution_count() -> int | None:
    """Number of the running cell, or ``None`` outside IPython."""
    shell = ipython()
    return shell.execution_count if shell is not None else None
