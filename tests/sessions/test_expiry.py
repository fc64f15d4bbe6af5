"""When a session is told that it ends."""

from __future__ import annotations

import pytest

from cambio_lab.sessions.control import LOOK_SECONDS, warning_time


@pytest.mark.parametrize("span", [2.0, 3.0, 10.0, 100.0, 3600.0])
def test_one_look_at_least_falls_into_the_time_of_the_warning(span: float) -> None:
    late = LOOK_SECONDS * 1.2  # a look may take a while
    assert max(late, min(60.0, span / 5)) <= warning_time(span) < 61.0


@pytest.mark.parametrize("span", [0.5, 1.0, 2.0])
def test_a_session_that_is_used_is_not_warned_however_short_its_idle_time(span: float) -> None:
    assert warning_time(span) < span - 0.01
