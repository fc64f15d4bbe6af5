"""Honest numbers from few runs: intervals, not points.

Sources: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927) for the interval
of a rate; M. Chen et al., "Evaluating Large Language Models Trained on Code" (2021, equation 1) for pass@k; the
bootstrap draws whole tasks, because repeats of one task resemble each other and are not independent evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, nan, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

DRAWS = 10_000


class Interval(NamedTuple):
    """``low <= high``; both ``nan`` where there is no data."""

    low: float
    high: float


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a success rate, within 0 and 1; ``ValueError`` when the counts make no sense.

    Unlike the textbook's normal interval it stays honest at 0 of n and n of n and for small n.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return Interval(nan, nan)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, z2 = successes / trials, z * z
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = z / (1 + z2 / trials) * sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(low, high)


def pass_at_k(trials: int, successes: int, k: int) -> float:
    """The unbiased estimate of "at least one of ``k`` runs succeeds" from ``successes`` in ``trials``.

    ``nan`` when fewer than ``k`` runs were made: nothing can be said then.
    """
    if k < 1 or not 0 <= successes <= trials:
        raise ValueError(f"pass@{k} of {successes} successes in {trials} trials")
    if trials < k:
        return nan
    return 1.0 - comb(trials - successes, k) / comb(trials, k)


def mean_pass_at_k(outcomes: Sequence[Sequence[bool]], k: int) -> float:
    """pass@k averaged over tasks; ``outcomes`` has one sequence for each task. Tasks with fewer runs are left out."""
    values = [pass_at_k(len(runs), sum(runs), k) for runs in outcomes if len(runs) >= k]
    return sum(values) / len(values) if values else nan


def bootstrap(clusters: Sequence[Sequence[float]], confidence: float = 0.95, *, seed: int = 0) -> Interval:
    """Percentile interval of the mean of all values, drawing whole clusters (tasks) with replacement.

    The same ``seed`` gives the same interval. One cluster alone says nothing about other tasks: its values are drawn
    one by one instead.
    """
    filled = [np.asarray(values, dtype=float) for values in clusters if len(values)]
    if not filled:
        return Interval(nan, nan)
    if len(filled) == 1:
        filled = [np.asarray([value]) for value in filled[0]]
    totals = np.asarray([values.sum() for values in filled])
    sizes = np.asarray([values.size for values in filled])
    chosen = np.random.default_rng(seed).integers(0, len(filled), size=(DRAWS, len(filled)))
    means = totals[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(low), float(high))


def paired_difference(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> tuple[float, Interval]:
    """How much better ``first`` is than ``second``: the mean over tasks of the difference of means, and its interval.

    The n-th sequence of both belongs to the same task; tasks that one of them lacks are left out.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks cannot be paired with {len(second)}")
    differences = [
        float(np.mean(one)) - float(np.mean(other)) for one, other in zip(first, second, strict=True) if one and other
    ]
    if not differences:
        return nan, Interval(nan, nan)
    interval = bootstrap([[difference] for difference in differences])
    return float(np.mean(differences)), interval


def per_success(total: float, successes: int) -> float:
    """What one success costs when failures are paid for, too; infinite without a success."""
    return total / successes if successes else float("inf")
