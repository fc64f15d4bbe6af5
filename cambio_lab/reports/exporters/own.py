"""This package's own formats: the run file, and a page that needs no server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import only

if TYPE_CHECKING:
    from ..run import Run


class CambioExporter:
    """The run file, which holds everything."""

    summary = "the run file: can be replayed, compared and continued"
    suffixes = (".cambio",)

    def write(self, runs: Sequence[Run], target: Path) -> None:
        only(runs).save(target)


class HtmlExporter:
    """The viewer as a page of its own."""

    summary = "a page with screenshots, actions and transcript; needs no server"
    suffixes = (".html", ".htm")

    def write(self, runs: Sequence[Run], target: Path) -> None:
        only(runs).to_html(target)
