"""An experiment for its readers: an HTML page (rates with intervals, settings, each cell with its run), and plots.

matplotlib is imported on first use: ``pip install "cambio-lab[analysis]"``.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Sequence
from functools import cache, partial
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment

from ..errors import load_optional
from ..recording.run_file import unpack
from . import Benchmark
from .results import Row, frame, grouped, rates, rows, write_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .experiment import Experiment

FRAMES, FRAME_WIDTH, MOST_STRIPS = 4, 160, 400
"""Images in a cell's filmstrip, their width in pixels, and how many cells get one: the page stays below 20 MB."""


def write(experiment: Experiment, path: Path) -> Path:
    """Write the page to ``path``, ``results.csv`` and ``results.parquet`` beside it; links are relative to the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = rows(experiment.cells, experiment.directory / "runs")
    tasks = {task.name: task for task in experiment.grid.tasks}
    for number, row in enumerate(table):
        tags = tasks[row["task"]].tags if row["task"] in tasks else ()
        row["group"] = tags[0] if tags else ""
        row["strip"] = _strip(Path(row["run"])) if row["run"] and number < MOST_STRIPS else []
        row["href"] = _link(Path(row["run"]), path) if row["run"] else ""
    group = partial(_group, table)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    source = experiment.source if isinstance(experiment.source, Benchmark) else None
    page = template.render(
        experiment=experiment,
        benchmark=source,
        facts=_facts(experiment, table),
        totals=group(("model", "setting")),
        groups=group(("group", "model", "setting")) if any(row["group"] for row in table) else [],
        tasks=group(("task", "model", "setting")),
        cells=table,
    )
    path.write_text(page, encoding="utf-8")
    with path.with_name("results.csv").open("w", newline="", encoding="utf-8") as file:
        write_csv(file, table)
    if find_spec("pandas") and find_spec("pyarrow"):
        frame(experiment.cells, experiment.directory / "runs").to_parquet(path.with_name("results.parquet"))
    return path


def _link(run: Path, page: Path) -> str:
    """Return the run file's address relative to the page; one that lies elsewhere is copied beside the page."""
    if not run.resolve().is_relative_to(page.parent.resolve()):
        folder = page.with_name(f"{page.stem}-runs")
        folder.mkdir(exist_ok=True)
        run = Path(shutil.copy(run, folder / run.name))
    return os.path.relpath(run, page.parent).replace(os.sep, "/")


def _group(table: Sequence[Row], by: tuple[str, ...]) -> list[Row]:
    """One row for each group: what :func:`rates` says, seconds and tokens."""
    return [
        {
            "names": names,
            **rates(members),
            "seconds": sum(row["wall_seconds"] or 0 for row in members) / len(members),
            "tokens": sum((row["input_tokens"] or 0) + (row["output_tokens"] or 0) for row in members),
        }
        for names, members in grouped(table, by).items()
    ]


def _facts(experiment: Experiment, table: Sequence[Row]) -> dict[str, str]:
    """What matters for a comparison: models, settings, seeds, limits, versions."""
    grid = experiment.grid
    facts = {
        "Models": ", ".join(f"{name} ({model})" if name != model else name for name, model in grid.models.items()
                            if isinstance(model, str)) or "none",
        "Policies": ", ".join(name for name, model in grid.models.items() if not isinstance(model, str)) or "none",
        "Seed": f"{grid.seed}, {grid.repeats} repeats; each cell's seed is in results.csv",
    }  # fmt: skip
    facts |= {f"Setting {name}": str(dict(changes) or "as below") for name, changes in grid.settings.items()}
    for config in {str({**grid.config, **task.config}) for task in grid.tasks}:
        facts.setdefault("Configuration", config)
    facts["Display"] = str(experiment.settings.display)
    seen: dict[str, set[str]] = {}
    for cell in experiment.cells:
        for name, value in (cell.outcome.environment if cell.outcome else {}).items():
            seen.setdefault(name, set()).add(value)
    return facts | {name: ", ".join(sorted(values)) for name, values in seen.items() if name != "host"}


def _strip(path: Path) -> list[str]:
    """Return a few of a run's screenshots, evenly spread, as small JPEGs in base64."""
    from PIL import Image

    contents = unpack(path)
    calls = [
        call["result"]["picture"]["sha256"] for call in contents.observations if "picture" in call.get("result", {})
    ]
    chosen = calls if len(calls) <= FRAMES else [calls[i * (len(calls) - 1) // (FRAMES - 1)] for i in range(FRAMES)]
    strip = []
    for digest in chosen:
        if (data := contents.find(digest)) is not None:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            image.thumbnail((FRAME_WIDTH, FRAME_WIDTH))
            small = io.BytesIO()
            image.save(small, "JPEG", quality=60)
            strip.append(base64.b64encode(small.getvalue()).decode())
    return strip


COLOURS = ("#2a6fbb", "#d9822b", "#3d9970", "#b5387a", "#7a5195", "#8c6d31")


def success_rates(summary: pd.DataFrame) -> Figure:
    """A dot with its 95 % interval for each row of ``summary``, best at the top."""
    table = summary.dropna(subset=["success_rate"]).sort_values("success_rate")
    figure, axes = _figure(max(2.0, 0.34 * len(table) + 1.2))
    rates = table["success_rate"].to_numpy()
    reach = [rates - table["low"].to_numpy(), table["high"].to_numpy() - rates]
    rows = range(len(table))
    axes.errorbar(rates, rows, xerr=reach, fmt="o", color=COLOURS[0], ecolor="#9bb8d6", capsize=3, elinewidth=2)
    axes.set_yticks(rows, _labels(table))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("success rate, 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    return figure


def heat(results: pd.DataFrame) -> Figure:
    """Success rate by task (rows) and model with setting (columns)."""
    counted = results[results["counted"]]
    table = counted.pivot_table(index="task", columns=["model", "setting"], values="success", aggfunc="mean")
    figure, axes = _figure(0.36 * len(table) + 1.8, width=2.6 + 1.3 * table.shape[1])
    axes.imshow(table.to_numpy(dtype=float), vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
    one_setting = table.columns.get_level_values("setting").nunique() == 1
    names = [model if one_setting else f"{model}\n{setting}" for model, setting in table.columns]
    axes.set_xticks(range(table.shape[1]), names)
    axes.set_yticks(range(len(table)), list(table.index))
    for (row, column), value in np.ndenumerate(table.to_numpy(dtype=float)):
        if np.isnan(value):
            continue
        ink = "white" if value < 0.15 or value > 0.85 else "black"
        axes.text(column, row, f"{value:.0%}", ha="center", va="center", fontsize=9, color=ink)
    return figure


def cost_and_time(results: pd.DataFrame) -> Figure:
    """Every counted run as a point: wall time against cost, filled when it succeeded, a colour for each model."""
    figure, axes = _figure(4.0)
    counted = results[results["counted"]]
    for colour, (model, runs) in zip(cycle(COLOURS), counted.groupby("model"), strict=False):
        good, bad = runs[runs["success"].astype(bool)], runs[~runs["success"].astype(bool)]
        axes.scatter(good["wall_seconds"], good["cost_usd"], color=colour, label=f"{model}: success", s=26)
        axes.scatter(
            *(bad["wall_seconds"], bad["cost_usd"]), edgecolors=colour, facecolors="none", label=f"{model}: not", s=26
        )
    axes.set_xlabel("wall time, s")
    axes.set_ylabel("cost, US$")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def _labels(table: pd.DataFrame) -> list[str]:
    index = table.index
    if index.nlevels == 1:
        return [str(name) for name in index]
    varying = [level for level in range(index.nlevels) if index.get_level_values(level).nunique() > 1] or [0]
    return [" · ".join(str(names[level]) for level in varying) for names in index]


def _figure(height: float, width: float = 7.0) -> tuple[Figure, Axes]:
    shown = _shown_figure()
    figure: Any = shown(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


@cache
def _shown_figure() -> Any:
    """matplotlib's figure, able to show itself in a cell. Not pyplot's: those live until closed, and show twice."""
    hint = 'Install it with: pip install "cambio-lab[analysis]".'
    base: Any = load_optional("matplotlib.figure", "Plots need matplotlib.", hint).Figure

    class ShownFigure(base):  # type: ignore[misc]
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png", dpi=96)
            return out.getvalue()

    return ShownFigure


KINDS = {"success": success_rates, "tasks": heat, "cost": cost_and_time}
