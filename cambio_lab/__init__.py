"""A Jupyter-native workbench for driving Claude computer-use agents.

Importing this package has no side effects and loads none of its heavy dependencies: the public names below are
imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .experiments import Experiment as Experiment
    from .experiments import Task as Task
    from .notebook.client import Workbench as Workbench
    from .notebook.session import Session as Session
    from .notebook.session import Turn as Turn
    from .runs import Run as Run
    from .runs import compare as compare

_PUBLIC = {
    "Experiment": ".experiments",
    "Task": ".experiments",
    "Workbench": ".notebook.client",
    "Session": ".notebook.session",
    "Turn": ".notebook.session",
    "Run": ".runs",
    "compare": ".runs",
}

__all__ = ["Experiment", "Run", "Session", "Task", "Turn", "Workbench", "__version__", "compare"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name], __name__), name)
    globals()[name] = value
    return value


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .extension import CambioLab

    return [{"module": "cambio_lab", "app": CambioLab}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "cambio-lab"}]


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext cambio_lab``: the magics."""
    from .notebook.magics import register

    register(ipython)
