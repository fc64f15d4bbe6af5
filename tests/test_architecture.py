"""The import graph of docs/architecture.md, enforced: who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Container, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cambio_lab"
DOCS = PACKAGE.parent / "docs"

# What each part may import of ours; what is below counts as reachable from above. `notebook` is a client of the API.
LEAVES = {"settings", "errors", "events", "usage", "_version"}
ALLOWED: dict[str, set[str]] = {
    "settings": {"errors"},
    "errors": set(),
    "events": {"usage"},
    "usage": set(),
    "_version": set(),
    "desktop": LEAVES,
    "store": LEAVES,
    "agent": LEAVES | {"desktop"},
    "recording": LEAVES | {"store", "agent", "desktop"},
    "replay": LEAVES | {"recording", "store", "agent", "desktop"},
    "reports": LEAVES | {"replay", "recording", "store", "agent", "desktop"},
    "sessions": LEAVES | {"agent", "desktop", "store", "recording", "replay"},
    "experiments": LEAVES | {"sessions", "replay", "recording", "reports", "agent", "desktop", "store", "interop"},
    "api": LEAVES | {"sessions", "agent", "desktop", "store", "recording", "replay"},
    "interop": LEAVES | {"sessions", "agent", "store", "client", "reports"},
    "client": LEAVES | {"reports"},  # for `session.run`
    "jupyter": LEAVES | {"client"},
}
WEB = {"tornado", "jupyter_server", "jupyter_server_proxy", "jupyterlab"}
MAY_USE_WEB = {"api", "server", "cli"}
LAZY = {"anthropic", "docker", "redis", "ipywidgets"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every absolute module name that a file imports, also inside functions; type-checking blocks included."""
    package = ("cambio_lab", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module == "cambio_lab":
                for alias in node.names:
                    yield node.lineno, f"cambio_lab.{alias.name}"
            else:
                yield node.lineno, module


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "node_modules" not in path.parts)


def area(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_point_one_way() -> None:
    wrong = []
    for path in files():
        here = area(path)
        if here not in ALLOWED:  # __init__ (lazy names), extension and cli see everything
            continue
        for line, module in imports(path):
            if not module.startswith("cambio_lab."):
                continue
            there = module.split(".")[1]
            if there != here and there not in ALLOWED[here]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_no_two_files_import_each_other() -> None:
    """Directly or through others, also inside functions; what only the type checker reads does not count."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in files()}
    known = {name.removesuffix(".__init__"): path for name, path in names.items()}
    sorter = TopologicalSorter({name: needs(path, known) - {name} for name, path in known.items()})
    sorter.prepare()  # raises CycleError, which names the files


def needs(path: Path, known: Container[str]) -> set[str]:
    """The modules of ours that are imported when the file runs; ``from package import module`` needs the module."""
    tree = ast.parse(path.read_text(), str(path))
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    unread = {id(node) for block in blocks for node in ast.walk(block)}
    package = ("cambio_lab", *path.relative_to(PACKAGE).parts[:-1])
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in unread:
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            inner = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else module for name in inner}
    return {name for name in found if name in known}


def test_only_the_edge_knows_the_web_server() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {module}"
        for path in files()
        if area(path) not in MAY_USE_WEB
        for line, module in imports(path)
        if module.split(".")[0] in WEB
    ]
    assert not wrong, "\n".join(wrong)


def test_the_core_runs_without_jupyter() -> None:
    """A run can execute in a script or on a worker: the core loads neither Tornado nor Jupyter."""
    parts = "cambio_lab.sessions.registry, cambio_lab.agent, cambio_lab.desktop, cambio_lab.store, cambio_lab.reports"
    code = f"import sys, {parts}\nprint(*[m for m in ('tornado', 'jupyter_server', 'jupyterlab') if m in sys.modules])"
    assert loaded(code) == []


@pytest.mark.parametrize("module", ["cambio_lab", "cambio_lab.server.extension", "cambio_lab.api.routes"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}\nprint(*[m for m in {sorted(LAZY)!r} if m in sys.modules])"
    assert loaded(code) == []


def loaded(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_one_place_imports_anthropic() -> None:
    places = {
        str(path.relative_to(PACKAGE))
        for path in files()
        for _, module in imports(path)
        if module.split(".")[0] == "anthropic"
    }
    assert places == {"agent/client.py"}


def test_the_drawing_names_every_part() -> None:
    """The graph in docs/architecture.md has an arrow for each allowed edge between parts, and no other part."""
    drawing = (DOCS / "architecture.md").read_text()
    edges = set(re.findall(r"^ {4}(\w+) --> (\w+)$", drawing, re.M))
    real = set()
    for path in files():
        here = area(path)
        for _, module in imports(path):
            if module.startswith("cambio_lab.") and here in ALLOWED and here not in LEAVES:
                there = module.split(".")[1]
                if there != here and there not in LEAVES:
                    real.add((here, there))
    missing = real - edges
    assert not missing, f"docs/architecture.md lacks {sorted(missing)}"
    assert all(there in ALLOWED[here] for here, there in edges)


def test_the_architecture_names_files_that_exist() -> None:
    """Every module named in docs/architecture.md is where the page says."""
    named = set(re.findall(r"`([a-z_]+/[a-z_/]*[a-z_]+\.py)`", (DOCS / "architecture.md").read_text()))
    root = PACKAGE.parent
    missing = [name for name in named if not (PACKAGE / name).is_file() and not (root / name).is_file()]
    assert not missing, f"docs/architecture.md names {sorted(missing)}"
