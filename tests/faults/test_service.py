"""The model's service fails: shown while it waits, nothing lost, the conversation stays one that it accepts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.store import MessageQuery
from tests.messages_api import MessagesApi
from tests.messages_api.failures import (
    BadGateway,
    Break,
    ErrorStatus,
    Failure,
    NoStop,
    SseError,
    overloaded,
    rate_limited,
)
from tests.messages_api.policies import Steps
from tests.sessions.parts import MemoryProvider

from .workbench import Listener, Workbench

FAULTS: dict[str, list[Failure]] = {
    "rate limited": [rate_limited(0.05)] * 2,
    "overloaded": [overloaded()] * 2,
    "error inside the stream": [SseError(after=3)],
    "connection reset before the answer": [Break(after=0)],
    "connection reset in the middle": [Break(after=5)],
    "stream without an end": [NoStop(after=5)],
    "a proxy's page": [BadGateway()],
    "one after the other": [overloaded(), Break(after=4), SseError(after=2), rate_limited(0.05)],
}


@pytest.fixture
async def bench(tmp_path: Path, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workbench]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_api.key)
    made = Workbench(tmp_path / "data", MemoryProvider(), messages_api, display="320x320", model_retries=40)
    await made.start()
    yield made
    await made.stop()


async def talk(bench: Workbench) -> tuple[Any, Listener]:
    session = await bench.registry.create()
    heard = Listener(session, stream=True)
    await session.send("Make your steps.")
    return session, heard


@pytest.mark.timing
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_said_and_survived(bench: Workbench, messages_api: MessagesApi, name: str) -> None:
    messages_api.policy = Steps(count=4, size=(320, 320))
    messages_api.fail(*FAULTS[name])
    session, heard = await talk(bench)
    answer = await heard.until("agent_response")
    assert answer["content"] == "Made 4 steps."
    retries = [one for one in heard.seen if one.get("metadata", {}).get("event") == "retry"]
    assert len(retries) == len(FAULTS[name])
    assert all(one["metadata"]["delay_seconds"] >= 0 and one["metadata"]["reason"] for one in retries)
    assert messages_api.refusals == []
    steps = await bench.store.steps.of(session.id)
    assert [step.status for step in steps] == ["completed"] * 4


async def test_ten_minutes_of_529_are_sat_out(
    bench: Workbench, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announced waits add up to more than ten minutes; the test does not sit through them."""
    announced: list[float] = []

    def at_once(attempt: int, retry_after: float | None) -> float:
        announced.append(min(0.5 * 2.0 ** (attempt - 1), 30.0) * 0.75)
        return 0.001

    monkeypatch.setattr("cambio_lab.agent.service_errors.backoff", at_once)
    messages_api.policy = Steps(count=2, size=(320, 320))
    messages_api.fail(overloaded(), times=33)
    _, heard = await talk(bench)
    assert (await heard.until("agent_response"))["content"] == "Made 2 steps."
    assert sum(announced) > 600


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "authentication_error"),
        (400, "invalid_request_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
    ],
)
async def test_a_rejection_ends_the_turn_at_once_and_the_next_message_works(
    bench: Workbench, messages_api: MessagesApi, status: int, kind: str
) -> None:
    messages_api.policy = Steps(count=2, size=(320, 320))
    messages_api.fail(ErrorStatus(kind, message="no, and sk-ant-secret"))
    session, heard = await talk(bench)
    error = await heard.until("error", 20)
    assert error["details"]
    assert "sk-ant-secret" not in str(heard.seen)
    assert session.status == "active"
    await session.send("Again.")
    assert (await heard.until("agent_response"))["content"] == "Made 2 steps."
    assert (await bench.store.messages.page(session.id, MessageQuery(role="user"))).total == 2
    assert messages_api.refusals == []


async def test_retries_that_are_used_up_end_the_turn_and_nothing_else(
    tmp_path: Path, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", messages_api.key)
    bench = Workbench(tmp_path / "data", MemoryProvider(), messages_api, display="320x320", model_retries=1)
    await bench.start()
    messages_api.policy = Steps(count=2, size=(320, 320))
    messages_api.fail(overloaded(), times=2)
    session, heard = await talk(bench)
    assert "could not answer" in (await heard.until("error"))["error"]
    await session.send("Again.")
    assert (await heard.until("agent_response"))["content"] == "Made 2 steps."
    await bench.stop()


async def test_stop_works_while_it_waits_for_the_service(bench: Workbench, messages_api: MessagesApi) -> None:
    messages_api.fail(rate_limited(3600))
    session, heard = await talk(bench)
    await heard.until("status:retry")
    await session.stop()
    assert (await heard.until("agent_response", 2))["metadata"]["stopped"] is True
    messages_api.policy = Steps(count=2, size=(320, 320))
    await session.send("Now.")
    assert (await heard.until("agent_response", start=len(heard.seen)))["content"] == "Made 2 steps."
