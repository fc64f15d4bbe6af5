"""A Jupyter-native workbench for driving Claude computer-use agents.

Importing this package has no side effects and loads none of its heavy dependencies: the public names below are
imported on first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .client.session import Session as Session
    from .client.turn import Turn as Turn
    from .client.workbench import Workbench as Workbench
    from .experiments import Experiment as Experiment
    from .experiments import Task as Task
    from .experiments import Verdict as Verdict
    from .experiments import benchmark as benchmark
    from .experiments import benchmarks as benchmarks
    from .reports import Run as Run
    from .reports import compare as compare
    from .reports import to_dataset as to_dataset

_PUBLIC = {
    "Experiment": ".experiments",
    "Task": ".experiments",
    "Verdict": ".experiments",
    "benchmark": ".experiments",
    "benchmarks": ".experiments",
    "Workbench": ".client.workbench",
    "Session": ".client.session",
    "Turn": ".client.turn",
    "Run": ".reports",
    "compare": ".reports",
    "to_dataset": ".reports",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PUBLIC[name], __name__), name)
    globals()[name] = value
    if _PUBLIC[name].startswith(".client") and "IPython" in sys.modules:
        from .jupyter.host import install

        install()
    return value


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    from .server.extension import CambioLab

    return [{"module": "cambio_lab", "app": CambioLab}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "cambio-lab"}]


def load_ipython_extension(ipython: Any) -> None:
    """``%load_ext cambio_lab``: the magics."""
    from .jupyter.host import AgentMagics, install

    install(ipython)
    ipython.register_magics(AgentMagics)
