"""One HTML page for an experiment: rates with intervals, settings, published numbers, every cell with its run file."""

from __future__ import annotations

import base64
import io
import os
import shutil
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment

from ..recording.run_file import unpack
from .results import Row, frame, grouped, rates, rows, write_csv

if TYPE_CHECKING:
    from .experiment import Experiment

FRAMES, FRAME_WIDTH, MOST_STRIPS = 4, 160, 400
"""Images in a cell's filmstrip, their width in pixels, and how many cells get one: the page stays below 20 MB."""


def write(experiment: Experiment, path: Path) -> Path:
    """Write the page to ``path``, ``results.csv`` and ``results.parquet`` beside it; links are relative to the page."""
    from .task import Benchmark

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
