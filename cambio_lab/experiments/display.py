"""How an experiment looks while it runs: a line in a terminal; in a notebook a bar, the grid and running desktops.

In a notebook the output is plain HTML, updated in place: unlike a widget it shows without a kernel.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from jinja2 import Environment

from .scheduler import Tally

LINE_SECONDS = 1.0
HTML_SECONDS = 0.5
WALL = 24
"""At most this many thumbnails on the wall."""
_ENVIRONMENT = Environment(autoescape=True)
_ENVIRONMENT.filters["base64"] = lambda data: base64.b64encode(data).decode()
_COLOURS = {"success": "#3d9970", "other": "#d9822b", "failed": "#c0392b", "running": "#2a6fbb", "open": "#d7dbe0"}
_MARKS = {  # the state of a cell: how a bar's share is called, and a sign for who does not see colours
    "success": ("success", "✓"),
    "failure": ("other", "✗"),
    "none": ("failed", "!"),
    "running": ("running", "…"),
    "open": ("open", " "),
}
CELL_SECONDS = 0.002
"""Each cell of the grid makes updates this much rarer: a large page costs the browser more."""


class Display(Protocol):
    """Shows a tally. ``thumbnails`` says whether it wants thumbnails."""

    thumbnails: bool

    def show(self, tally: Tally) -> None: ...

    def close(self, tally: Tally) -> None: ...


class Silent:
    """Shows nothing."""

    thumbnails = False

    def show(self, tally: Tally) -> None:
        """Nothing to do."""

    def close(self, tally: Tally) -> None:
        """Nothing to do."""


class Terminal:
    """One line, rewritten in place on a terminal and repeated every half minute in a log file."""

    thumbnails = False

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


class Page:
    """A notebook's output, updated in place. ``update`` is given HTML; ``runs`` is the folder of the run files."""

    thumbnails = True

    def __init__(self, update: Callable[[str], None], runs: Path | None = None) -> None:
        self._update = update
        self._runs = runs
        self._last = -1e9

    def show(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._last >= HTML_SECONDS + CELL_SECONDS * len(tally.cells):
            self._last = now
            self._update(as_html(tally, self._runs))

    def close(self, tally: Tally) -> None:
        self._update(as_html(tally, self._runs))


def choose(progress: bool | Display, runs: Path | None = None) -> Display:
    """The display for where we are: a page in a kernel, a line elsewhere, nothing for ``False``."""
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return Silent()
    shell = _kernel()
    if shell is None:
        return Terminal()
    from IPython import display

    page: Any = display
    handle = page.display(page.HTML(""), display_id=True)
    return Page(lambda text: handle.update(page.HTML(text)), runs)


def _kernel() -> Any:
    """The running IPython kernel's shell, if we are in one; does not import IPython."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def words(tally: Tally) -> str:
    """The tally as a line: done, failed, running, spend, time left."""
    parts = [f"{tally.done + tally.failed}/{tally.total} done", f"{tally.success} succeeded"]
    if tally.failed:
        parts.append(f"{tally.failed} failed")
    if tally.retries:
        parts.append(f"{tally.retries} tried again")
    if not tally.ended:
        parts.append(f"{tally.running} running")
    parts.append(f"${tally.spent_usd:.2f}")
    if tally.ended:
        parts.append(f"{duration(tally.seconds)}, {tally.ended.replace('_', ' ')}")
    elif tally.left_seconds is not None:
        parts.append(f"{duration(tally.left_seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``42 s``, ``3:05 min``, ``2:07 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def _bar(tally: Tally, width: int = 24) -> str:
    done = (tally.done + tally.failed) * width // max(1, tally.total)
    return f"[{'#' * done}{'.' * (width - done)}]"


_PAGE = _ENVIRONMENT.from_string(
    """<div style="font:13px sans-serif"><div role="progressbar" aria-valuemin="0" aria-valuemax="{{ tally.total }}"
 aria-valuenow="{{ tally.done + tally.failed }}" aria-label="{{ label }}"
 style="display:flex;height:10px;border-radius:5px;overflow:hidden;background:#d7dbe0">
{%- for name, count in shares if count %}<div title="{{ count }} {{ name }}"
 style="width:{{ "%.2f" | format(100 * count / (tally.total or 1)) }}%;background:{{ colours[name] }}">
</div>{% endfor -%}
</div><p style="margin:6px 0">{{ label }}</p>
{%- if grid %}<div style="max-height:26em;overflow:auto"><table style="border-collapse:collapse;font-size:12px">
<thead><tr><th style="text-align:left">Task</th>
{%- for name in columns %}<th style="text-align:left;padding-right:1em">{{ name }}</th>{% endfor -%}
</tr></thead><tbody>
{%- for task, row in grid.items() %}<tr><td style="text-align:left">{{ task }}</td>
{%- for name in columns %}<td style="text-align:left;white-space:nowrap;padding-right:1em">
{%- for cell in row[name] %}<a title="{{ cell.title }}"{% if cell.href %} href="{{ cell.href | urlencode }}"{% endif %}
 style="display:inline-block;vertical-align:top;width:15px;height:15px;margin:1px;line-height:15px;color:#fff;
 text-align:center;text-decoration:none;border-radius:3px;background:{{ colours[cell.colour] }}">
{{- cell.sign }}</a>{% endfor -%}
</td>{% endfor %}</tr>{% endfor %}</tbody></table></div>
{%- if failures %}<details><summary>{{ failures | length }} without success</summary><ul>
{%- for cell in failures[:200] %}<li>{% if cell.href %}<a href="{{ cell.href | urlencode }}">{{ cell.id }}</a>
{%- else %}{{ cell.id }}{% endif %}: {{ cell.note[:300] }}</li>{% endfor %}</ul></details>{% endif %}{% endif -%}
{%- if live %}<div style="display:flex;flex-wrap:wrap;gap:8px">
{%- for item in live %}<div style="width:200px;font-size:11px;overflow-wrap:anywhere">
{%- if item.thumbnail %}<img alt="desktop of {{ item.cell_id }}" width="200"
 src="data:image/jpeg;base64,{{ item.thumbnail | base64 }}">
{%- else %}<div style="width:200px;height:125px;background:#eceff3"></div>{% endif -%}
<div>{{ item.cell_id }}<br>{{ item.state }}, {{ item.steps }} step{{ "" if item.steps == 1 else "s" }},
 ${{ "%.2f" | format(item.cost_usd) }}</div></div>{% endfor -%}
{%- if more %}<div>and {{ more }} more</div>{% endif -%}
</div>{% endif %}</div>"""
)


def as_html(tally: Tally, runs: Path | None = None) -> str:
    """Return bar, line, grid of cells and thumbnails of what runs; readable where styles are removed, too.

    A cell links to its run file in ``runs``, relative to the working directory (a notebook's own).
    """
    left = tally.total - tally.done - tally.failed - tally.running
    shares = (
        ("success", tally.success),
        ("other", tally.done - tally.success),
        ("failed", tally.failed),
        ("running", tally.running),
        ("open", max(0, left)),
    )
    live, more = tally.live[:WALL], max(0, len(tally.live) - WALL)
    cells = [_cell(name, tally, runs) for name in tally.cells]
    columns = list(dict.fromkeys(mark.column for mark in tally.cells.values()))
    grid: dict[str, dict[str, list[dict[str, str]]]] = {}
    for mark, cell in zip(tally.cells.values(), cells, strict=True):
        grid.setdefault(mark.task, {name: [] for name in columns})[mark.column].append(cell)
    return _PAGE.render(
        tally=tally,
        label=words(tally),
        shares=shares,
        colours=_COLOURS,
        live=live,
        more=more,
        grid=grid,
        columns=columns,
        failures=[cell for cell in cells if cell["state"] in ("failure", "none")],
    )


def _cell(cell_id: str, tally: Tally, runs: Path | None) -> dict[str, str]:
    mark = tally.cells[cell_id]
    live = next((item for item in tally.live if item.cell_id == cell_id), None)
    state = "running" if live and mark.state == "open" else mark.state
    colour, sign = _MARKS[state]
    note = f"{live.state}, step {live.steps}" if live and state == "running" else mark.note
    return {
        "id": cell_id,
        "state": state,
        "colour": colour,
        "sign": sign,
        "note": note,
        "title": f"{cell_id}: {state}" + (f" ({note[:300]})" if note else ""),
        "href": os.path.relpath(runs / mark.run).replace(os.sep, "/") if runs and mark.run else "",
    }
