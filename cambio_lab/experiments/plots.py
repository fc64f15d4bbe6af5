"""Plots of an experiment. matplotlib is imported on first use: ``pip install "cambio-lab[analysis]"``."""

from __future__ import annotations

import io
from functools import cache
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigurationError(
            "Plots need matplotlib.", hint='Install it with: pip install "cambio-lab[analysis]".'
        ) from None
    base: Any = Figure

    class ShownFigure(base):  # type: ignore[misc]
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png", dpi=96)
            return out.getvalue()

    return ShownFigure


KINDS = {"success": success_rates, "tasks": heat, "cost": cost_and_time}
