"""Calls are replayed as they were made, whatever the wall clock did meanwhile."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from cambio_lab.recording import order
from cambio_lab.recording.recorder import OBSERVED, STARTED
from cambio_lab.store import EventRow
from tests.messages_api import Script, View, click, member, reply, screenshot

from .conftest import Workshop


async def test_a_clock_set_back_changes_nothing(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ahead = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + ahead)

    def set_back(view: View) -> Any:
        nonlocal ahead
        ahead = -3600.0
        return reply(click(20, 20), screenshot())

    policy = Script([reply(click(10, 10), screenshot()), set_back, reply(member("key", text="Tab"), screenshot())])
    run = await workshop.run("go", policy=policy)
    assert (await run.replay()).identical
    calls = run.contents.observations
    acts = [(call["step"], call["method"]) for call in calls if call["method"] in ("click", "key")]
    assert acts == [(1, "click"), (3, "click"), (5, "key")]
    assert [call["at"] for call in calls] == sorted(call["at"] for call in calls)
    assert not any("clock" in call for call in calls)


def row(number: int, kind: str, **record: Any) -> EventRow:
    return EventRow("s-1", None, None, 0.0, kind, None, json.dumps(record), number)


def observed(number: int, method: str, at: float, ms: float = 0.0, **more: Any) -> EventRow:
    return row(number, OBSERVED, method=method, at=at, ms=ms, **more)


def named(rows: list[EventRow], steps: list[dict[str, Any]] | None = None) -> list[tuple[int | None, str]]:
    return [(call["step"], call["method"]) for call in order.observations(rows, steps or [])]


def test_records_without_a_clock_are_ordered_by_their_times() -> None:
    rows = [observed(1, "inner", 11.0), observed(2, "outer", 10.5), observed(3, "later", 30.0)]
    steps = [{"step": 1, "started_at": 10.0, "ended_at": 20.0}]
    assert named(rows, steps) == [(1, "outer"), (1, "inner"), (None, "later")]


def test_each_start_is_ordered_by_itself() -> None:
    first = [row(1, STARTED), observed(2, "a", 10.0, clock=900.0), observed(3, "b", 11.0, clock=901.0)]
    again = [row(4, STARTED), observed(5, "c", 20.0, clock=5.0)]
    assert [method for _, method in named([*first, *again])] == ["a", "b", "c"]


def test_a_clients_call_has_its_place_without_a_clock() -> None:
    rows = [
        observed(1, "first", 100.0, 10.0, clock=50.0),
        observed(2, "client's, during the second", 100.5, by="client"),
        observed(3, "second", 100.4, 500.0, clock=50.4),
        observed(4, "set back", 10.0, 100.0, clock=51.0),
        observed(5, "client's, then", 10.2, by="client"),
        observed(6, "last", 10.3, clock=51.3),
    ]
    methods = [method for _, method in named(rows)]
    assert methods == [
        "first",
        "second",
        "client's, during the second",
        "set back",
        "client's, then",
        "last",
    ]
