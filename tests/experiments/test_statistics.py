"""The numbers, against published and independently computed values."""

from __future__ import annotations

import itertools
import math

import pytest

from cambio_lab.experiments.results import (
    bootstrap,
    mean_pass_at_k,
    paired_difference,
    pass_at_k,
    per_success,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_newcombes_table(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_wilson_at_the_edges() -> None:
    assert wilson(0, 5).low == 0.0
    assert wilson(5, 5).high == 1.0
    assert math.isnan(wilson(0, 0).low)
    assert wilson(3, 5, 0.99).low < wilson(3, 5, 0.9).low
    with pytest.raises(ValueError, match="6 successes in 5"):
        wilson(6, 5)


def test_pass_at_k_is_the_share_of_draws_with_a_success() -> None:
    """Against brute force: every way to draw k of n runs."""
    for trials, k in itertools.product(range(1, 8), range(1, 8)):
        for good in range(trials + 1):
            runs = [True] * good + [False] * (trials - good)
            draws = list(itertools.combinations(runs, k))
            wanted = sum(map(any, draws)) / len(draws) if draws else math.nan
            assert pass_at_k(trials, good, k) == pytest.approx(wanted, nan_ok=True)


def test_mean_pass_at_k_weighs_tasks_equally() -> None:
    assert mean_pass_at_k([[True] * 10, [False, False]], 1) == pytest.approx(0.5)
    assert mean_pass_at_k([[True, False], [True]], 2) == 1.0  # the second task has too few runs
    assert math.isnan(mean_pass_at_k([], 1))


def test_bootstrap_draws_tasks_not_runs() -> None:
    """Ten repeats of one outcome per task carry no more than the tasks themselves."""
    few = bootstrap([[1.0], [1.0], [0.0], [0.0]])
    many = bootstrap([[1.0] * 10, [1.0] * 10, [0.0] * 10, [0.0] * 10])
    assert many == few
    assert bootstrap([[1.0] * 10, [0.0] * 10], seed=3) == bootstrap([[1.0] * 10, [0.0] * 10], seed=3)
    one_task = bootstrap([[1.0, 0.0, 1.0, 1.0]])
    assert 0 < one_task.low < 0.75 <= one_task.high <= 1


def test_paired_difference_uses_each_task_as_its_own_control() -> None:
    hard, easy = [0.0, 0.0], [1.0, 1.0]
    mean, interval = paired_difference([easy, [1.0, 0.0]] * 6, [[1.0, 0.0], hard] * 6)
    assert mean == pytest.approx(0.5)
    assert interval.low == pytest.approx(0.5) and interval.high == pytest.approx(0.5)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([[1.0]], [])


def test_cost_of_a_success_pays_for_failures_too() -> None:
    assert per_success(6.0, 3) == 2.0
    assert per_success(1.0, 0) == math.inf
