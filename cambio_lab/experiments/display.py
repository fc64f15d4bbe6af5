"""How an experiment looks while it runs: a line in a terminal; in a notebook a bar, the grid and running desktops.

In a notebook the output is plain HTML, updated in place: unlike a widget it shows without a kernel.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

from ..recording import walls
from .scheduler import Tally
from .wall import Json, as_html, describe, words

logger = logging.getLogger(__name__)
LINE_SECONDS = 1.0
HTML_SECONDS = 0.5
CELL_SECONDS = 0.002
"""Each cell of the grid makes updates this much rarer: a large page costs the browser more."""


class Display:
    """Shows a tally; this one nothing. ``thumbnails`` says whether it wants thumbnails."""

    thumbnails = False

    def show(self, tally: Tally) -> None:
        """The tally has changed."""

    def close(self, tally: Tally) -> None:
        """The run is over."""


class Terminal(Display):
    """One line, rewritten in place on a terminal and repeated every half minute in a log file."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rewrites = self._stream.isatty()
        self._last = -1e9

    def show(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._last < (LINE_SECONDS if self._rewrites else 30.0):
            return
        self._last = now
        self._write(tally, last=False)

    def close(self, tally: Tally) -> None:
        self._write(tally, last=True)

    def _write(self, tally: Tally, *, last: bool) -> None:
        text = f"{_bar(tally)} {words(tally)}"
        end = "\n" if last or not self._rewrites else ""
        self._stream.write(("\r\x1b[K" if self._rewrites else "") + text + end)
        self._stream.flush()


class Page(Display):
    """A notebook's output, updated in place. ``update`` is given HTML; ``about`` is as for :func:`describe`."""

    thumbnails = True

    def __init__(self, update: Callable[[str], None], **about: Any) -> None:
        self._update = update
        self._about = about
        self._last = -1e9

    def show(self, tally: Tally) -> None:
        if self._due(tally):
            self._update(as_html(describe(tally, **self._about)))

    def _due(self, tally: Tally) -> bool:
        now = time.monotonic()
        due = now - self._last >= HTML_SECONDS + CELL_SECONDS * len(tally.cells)
        self._last = now if due else self._last
        return due

    def close(self, tally: Tally) -> None:
        self._update(as_html(describe(tally, **self._about)))


class Published(Page):
    """Another display, and the experiment's record for the sidebar, written by a thread of its own."""

    def __init__(self, inner: Display, **about: Any) -> None:
        super().__init__(lambda text: None, **about)
        self._inner = inner
        self._thread = ThreadPoolExecutor(1, "cambio_lab wall")
        self._writing: Future[None] | None = None

    def show(self, tally: Tally) -> None:
        self._inner.show(tally)
        if (self._writing is None or self._writing.done()) and self._due(tally):
            self._write(tally)

    def close(self, tally: Tally) -> None:
        self._inner.close(tally)
        self._write(tally)
        self._thread.shutdown()

    def _write(self, tally: Tally) -> None:
        self._writing = self._thread.submit(self._publish, describe(tally, **self._about))

    def _publish(self, record: Json) -> None:
        try:
            walls.publish(record)
        except OSError as error:  # the experiment goes on without the sidebar
            logger.warning("the sidebar is not told: %s", error)


def choose(progress: bool | Display, **about: Any) -> Display:
    """The display for where we are: a page in a kernel, a line elsewhere, nothing for ``False``.

    What shows anything is shown in JupyterLab's sidebar, too, if the experiment has an ``identity``.
    """
    if not progress:
        return Display()
    shown = progress if not isinstance(progress, bool) else _page(about) if _kernel() else Terminal()
    return Published(shown, **about) if about.get("identity") else shown


def _page(about: dict[str, Any]) -> Page:
    from IPython import display

    page: Any = display
    handle = page.display(page.HTML(""), display_id=True)
    return Page(lambda text: handle.update(page.HTML(text)), **about)


def _kernel() -> Any:
    """The running IPython kernel's shell, if we are in one; does not import IPython."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def _bar(tally: Tally) -> str:
    done = (tally.done + tally.failed) * 24 // max(1, tally.total)
    return f"[{'#' * done}{'.' * (24 - done)}]"
