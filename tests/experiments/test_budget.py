"""Caps hold however many attempts run at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cambio_lab.experiments.limits import Budget


def test_what_runs_at_once_cannot_pass_the_cap_together() -> None:
    budget = Budget(max_cost_usd=2.5)
    assert budget.admit("a", cost_usd=1, steps=0)
    assert budget.admit("b", cost_usd=1, steps=0)
    assert budget.admit("c", cost_usd=1, steps=0) is None, "half a dollar is left, and others may return theirs"
    budget.settle("a", cost_usd=0.1, steps=3)
    given = budget.admit("c", cost_usd=1, steps=0)
    assert given is not None and given.cost_usd == 1 and not given.short


def test_the_last_one_gets_what_is_left() -> None:
    budget = Budget(max_cost_usd=1.0, max_steps=100, spent_usd=0.8, spent_steps=90)
    allowance = budget.admit("a", cost_usd=5, steps=40)
    assert allowance is not None
    assert allowance.cost_usd == pytest.approx(0.2) and allowance.steps == 10 and allowance.short
    budget.settle("a", cost_usd=0.2, steps=4)
    assert budget.reached == "max_cost_usd"
    assert budget.admit("b", cost_usd=5, steps=40) is None


def test_without_caps_nothing_is_limited() -> None:
    allowance = Budget().admit("a", cost_usd=0, steps=0)
    assert allowance is not None and allowance.cost_usd == 0 and allowance.steps == 0 and not allowance.short


def test_time_is_a_cap() -> None:
    assert Budget(max_seconds=0.0).reached == "max_seconds"


@given(
    st.floats(0.5, 20),
    st.integers(1, 200),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50), st.floats(0, 1), st.booleans()), max_size=60),
)
def test_sessions_that_keep_to_their_allowance_never_pass_the_cap(
    cost: float, steps: int, attempts: list[tuple[float, int, float, bool]]
) -> None:
    budget = Budget(max_cost_usd=cost, max_steps=steps)
    running: dict[str, tuple[float, int]] = {}
    for number, (wants, calls, share, ends) in enumerate(attempts):
        allowance = budget.admit(str(number), cost_usd=wants, steps=calls)
        if allowance is not None:
            running[str(number)] = (allowance.cost_usd * share, int(allowance.steps * share))
        if ends and running:
            name, (used, made) = running.popitem()
            budget.settle(name, cost_usd=used, steps=made)
    for name, (used, made) in running.items():
        budget.settle(name, cost_usd=used, steps=made)
    assert budget.spent_usd <= cost + 1e-9
    assert budget.spent_steps <= steps
