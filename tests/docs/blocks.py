"""The code blocks of the documentation's pages."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
_FENCE = re.compile(r"^```([\w-]+)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of ``page`` in ``language``, in order."""
    text = page.read_text(encoding="utf-8")
    return [code for name, code in _FENCE.findall(text) if name == language]


def pages() -> list[Path]:
    """Return the tutorial and the how-to guides."""
    return [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]
