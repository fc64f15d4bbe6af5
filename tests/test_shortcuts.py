"""Keyboard shortcuts of the front end beside those of JupyterLab itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jupyterlab

ROOT = Path(__file__).resolve().parent.parent


def shortcuts(schema: Path) -> dict[frozenset[str], str]:
    """Return the commands of a settings schema by the keys of their first chord."""
    found: list[dict[str, Any]] = json.loads(schema.read_text(encoding="utf-8")).get("jupyter.lab.shortcuts", [])
    return {
        frozenset(key.lower().replace("ctrl", "accel").split()): item["command"]
        for item in found
        for key in item["keys"][:1]
    }


def test_no_shortcut_is_one_of_jupyterlab() -> None:
    core: dict[frozenset[str], str] = {}
    for schema in (Path(jupyterlab.__file__).parent / "schemas").rglob("*.json"):
        core |= shortcuts(schema)
    ours = shortcuts(ROOT / "labextension" / "schema" / "agents.json")
    assert frozenset({"accel", "alt", "a"}) in core, "running:show-modal has moved: check what this test reads"
    assert ours and not ours.keys() & core.keys()
