"""What the loop itself costs, in work of its own thread: a busy machine does not change that."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.loop import sdk_time, step_times


@pytest.mark.timing
async def test_a_step_costs_little_and_old_screenshots_cost_nothing() -> None:
    await step_times(3, 1)  # loads the SDK
    early = statistics.median((await step_times(20, 20)).work)
    found = await step_times(54, 250)
    late = statistics.median(found.work[46:54])
    assert found.sizes[50] > 16_000_000
    print(f"early {early:.1f} ms, with 50 screenshots of 250 KB {late:.1f} ms")
    assert early <= 10, "5 ms on a quiet machine"
    assert late <= 20, "30 ms are allowed on the clock"
    assert late < 0.5 * await sdk_time(50, 250), "the plain SDK serialises every screenshot again"
