"""The tables of docs/faults.md and docs/security.md name tests: each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["faults", "security"])
def test_every_claim_has_its_test(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 15
    missing = [f"{path}::{name}" for path, name in named if not exists(path, name)]
    assert missing == []
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    tables = [row for row in rows if "`tests/" not in row and "Test |" not in row and "trusted with" not in row.lower()]
    who = [row for row in tables if row.count("|") > 3]
    assert who == [], "a claim without a test"


def exists(path: str, name: str) -> bool:
    file = ROOT / path
    if not file.is_file():
        return False
    functions = {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return not name or name in functions
