"""Build the documentation: ``make docs``. Pages are MyST; parts of the reference come from the code."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import generate  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

from cambio_lab import __version__  # noqa: E402

project = "cambio_lab"
author = "The cambio_lab contributors"
copyright = "The cambio_lab contributors; BSD-3-Clause"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design", "sphinx_copybutton"]
exclude_patterns = ["_build"]
suppress_warnings = ["misc.highlighting_failure"]  # the contract abbreviates JSON with "..."
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_fence_as_directive = ["mermaid"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
python_use_unqualified_type_names = True
html_theme = "pydata_sphinx_theme"
html_title = "cambio_lab"
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
html_sidebars = {"index": [], "tutorial": [], "glossary": [], "coming-from": []}
html_show_sourcelink = False


def fill_in(app: Sphinx, name: str, source: list[str]) -> None:
    """Replace ``<!-- generated: NAME -->`` by what ``generate.NAME()`` returns."""
    for part in generate.PARTS:
        marker = f"<!-- generated: {part.__name__} -->"
        if marker in source[0]:
            source[0] = source[0].replace(marker, part())


def setup(app: Sphinx) -> None:
    from docutils import nodes
    from docutils.parsers.rst import Directive

    class Mermaid(Directive):
        """Show a diagram's source: it reads as text, and needs no script from elsewhere."""

        has_content = True

        def run(self) -> list[nodes.Node]:
            text = "\n".join(self.content)
            return [nodes.literal_block(text, text, language="text")]

    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", fill_in)
