"""Stop, at every point where a turn can be: within 100 ms, with a history that the strict stand-in accepts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cambio_lab.agent import Gate
from cambio_lab.events import (
    ApprovalDecided,
    ApprovalRequested,
    Event,
    HistoryAppended,
    RequestSent,
    Retrying,
    StatusChanged,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnFailed,
    TurnFinished,
)
from tests.messages_api import MessagesApi, Script, Stall, member, rate_limited, screenshot, think, tool
from tests.messages_api import reply as answer
from tests.messages_api.policies import Policy

from .conftest import MakeAgent, of, play, until
from .fake_desktop import FakeDesktop
from .stream import turn_events

AT_MOST = 0.100  # seconds from stop() to the last event of the turn


@dataclass(frozen=True)
class Point:
    """Somewhere to stop: what the model says, when to press stop, and how long after that event."""

    policy: Policy
    when: Callable[[Event], bool]
    after: float = 0.05
    risky: bool = False
    stall: int | None = None
    limited: bool = False


def running(name: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, ToolStarted) and event.tool == name


LONG_TEXT = "All work and no play makes a dull agent. " * 40
POINTS = {
    "waiting for the model": Point(Script([answer("Hm.")]), lambda e: isinstance(e, RequestSent), stall=0),
    "mid-stream": Point(Script([answer(LONG_TEXT)]), lambda e: isinstance(e, TextDelta), stall=6),
    "in a wait": Point(Script([answer(member("wait", duration=30), screenshot())]), running("wait")),
    "in hold_key": Point(Script([answer(member("hold_key", text="shift", duration=30))]), running("hold_key")),
    "in a long shell command": Point(
        Script([answer(tool("bash", command="sleep 30"), member("left_click"))]), running("bash")
    ),
    "waiting for approval": Point(
        Script([answer(member("left_click"), member("type", text="rm -rf /"))]),
        lambda e: isinstance(e, ApprovalRequested),
        risky=True,
    ),
    "waiting to try again": Point(Script([answer("Hm.")]), lambda e: isinstance(e, Retrying), limited=True),
    "between two actions": Point(
        Script([answer(member("left_click"), member("left_click"), screenshot())]),
        lambda e: isinstance(e, ToolFinished),
        after=0.0,
    ),
}


@pytest.mark.timing
@pytest.mark.parametrize("name", POINTS)
async def test_stop_is_prompt_and_the_conversation_goes_on(
    name: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    point = POINTS[name]
    agent = make(api, gate=Gate("risky" if point.risky else "never"))
    await play(agent)  # the SDK is loaded by now: its import is not what is measured
    api.policy = point.policy
    desktop.done.clear()
    if point.stall is not None:
        api.fail(Stall(after=point.stall))
    if point.limited:
        api.fail(rate_limited(60))
    stopped_at = 0.0

    def stop() -> None:
        nonlocal stopped_at
        stopped_at = time.perf_counter()
        agent.gate.stop()

    def press() -> None:
        if point.after:
            asyncio.get_running_loop().call_later(point.after, stop)
        else:
            stop()

    found = await until(agent, point.when, press)
    took = time.perf_counter() - stopped_at
    end = found[-1]
    assert isinstance(end, TurnFinished) and end.stopped, end
    assert took < AT_MOST, f"{took * 1000:.0f} ms"
    print(f"stop {name}: {took * 1000:.1f} ms")
    assert not end.needs_input and desktop.held == 0
    _every_call_is_answered(agent.history)

    api.policy = Script([answer(think("go on"), screenshot())], end="Here I am again.")
    agent.gate.policy = "never"
    again = await play(agent, "Go on.")
    assert isinstance(again[-1], TurnFinished) and again[-1].text == "Here I am again."
    assert api.refusals == []


def _every_call_is_answered(history: list[dict[str, Any]]) -> None:
    for index, message in enumerate(history):
        calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        if calls:
            answers = history[index + 1]["content"]
            assert [block["tool_use_id"] for block in answers] == calls


async def test_the_texts_of_a_stopped_batch(make: MakeAgent, api: MessagesApi, desktop: FakeDesktop) -> None:
    api.policy = Script(
        [answer(member("left_click"), member("wait", duration=30), screenshot(), tool("bash", command="ls"))]
    )
    agent = make(api)
    found = await until(agent, running("wait"), agent.gate.stop)
    results = agent.history[-1]["content"]
    texts = [result["content"][0]["text"] for result in results]
    assert texts[0] == "Clicked."
    assert texts[1].startswith("Interrupted: the user stopped the agent")
    assert texts[2] == texts[3] == "Not executed: the user stopped the agent."
    assert [bool(result.get("is_error")) for result in results] == [False, True, True, True]
    assert [event.is_error for event in of(found, ToolFinished)] == [False, True, True, True]
    assert [event.ended for event in of(found, ToolFinished)] == ["ran", "interrupted", "skipped", "skipped"]
    assert of(found, ToolFinished)[1].timing.total > 0
    assert found[-1].tool_calls == ["left_click", "wait", "screenshot", "bash"]  # type: ignore[attr-defined]
    assert ("release_all",) in desktop.done


async def test_a_stopped_answer_keeps_what_was_said(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(LONG_TEXT)])
    api.fail(Stall(after=8))
    agent = make(api)
    found: list[Event] = []
    said: list[str] = []
    async for event in turn_events(agent, "Tell me."):
        found.append(event)
        if isinstance(event, TextDelta):
            said.append(event.text)
            if len(said) == 4:
                agent.gate.stop()
    end = found[-1]
    assert isinstance(end, TurnFinished) and end.text == "".join(said) and LONG_TEXT.startswith(end.text)
    assert agent.history[-1]["role"] == "user", "nothing of a partial reply is kept"
    assert agent.usage.cost_usd > 0, "what the service counted before the stop is paid for"


async def test_stop_without_a_turn_does_nothing(make: MakeAgent, api: MessagesApi) -> None:
    agent = make(api)
    agent.gate.stop()
    assert isinstance((await play(agent))[-1], TurnFinished)
    agent.gate.stop()
    assert (await play(agent))[-1].stopped is False  # type: ignore[attr-defined]


async def test_pause_holds_between_actions_and_resume_goes_on(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(member("left_click"), member("right_click"), screenshot())], end="Done.")
    agent = make(api)
    held: list[int] = []

    async def resume() -> None:
        await asyncio.sleep(0.1)
        held.append(len(desktop.done))
        agent.gate.resume()

    found: list[Event] = []
    resuming = None
    async for event in turn_events(agent, "Go."):
        found.append(event)
        if isinstance(event, ToolFinished) and event.tool == "left_click":
            agent.gate.pause()
        if isinstance(event, StatusChanged) and event.status == "paused":
            resuming = asyncio.create_task(resume())
    assert resuming is not None
    await resuming
    assert held == [1], "nothing moved while paused"
    assert isinstance(found[-1], TurnFinished) and not found[-1].stopped
    assert [event.tool for event in of(found, ToolFinished)] == ["left_click", "right_click", "screenshot"]


async def test_stop_ends_a_pause(make: MakeAgent, api: MessagesApi) -> None:
    agent = make(api)
    agent.gate.pause()
    found = await until(agent, lambda e: isinstance(e, StatusChanged) and e.status == "paused", agent.gate.stop)
    assert found[-1].stopped  # type: ignore[attr-defined]
    agent.gate.resume()
    assert not (await play(agent))[-1].stopped  # type: ignore[attr-defined]


@pytest.mark.timing
@pytest.mark.parametrize("where", ["model", "action", "approval"])
async def test_a_desktop_that_dies_ends_the_turn_at_once(
    where: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(member("wait", duration=30), member("type", text="x"))])
    if where == "model":
        api.fail(Stall(after=0))
    agent = make(api, gate=Gate("always" if where == "approval" else "never"))
    point = {"model": RequestSent, "action": ToolStarted, "approval": ApprovalRequested}[where]
    died_at = 0.0

    def die() -> None:
        nonlocal died_at
        died_at = time.perf_counter()
        desktop.die("The container was removed.")

    found = await until(agent, lambda e: isinstance(e, point), die)
    end = found[-1]
    assert isinstance(end, TurnFailed) and end.fatal and "container was removed" in end.details
    assert time.perf_counter() - died_at < 0.5
    _every_call_is_answered(agent.history)
    if where == "approval":
        assert of(found, ApprovalDecided)[-1].verdict == "stopped"


async def test_a_consumer_that_leaves_in_a_batch_leaves_a_valid_history(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(member("left_click"), member("wait", duration=30))], end="Back.")
    agent = make(api)
    events = turn_events(agent, "Go.")
    async for event in events:
        if isinstance(event, ToolStarted) and event.tool == "wait":
            break
    await events.aclose()
    _every_call_is_answered(agent.history)
    api.policy = Script([], end="Back.")
    assert (await play(agent))[-1].text == "Back."  # type: ignore[attr-defined]


async def test_every_message_is_told_before_it_is_acted_upon(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(member("left_click"))], end="Done.")
    agent = make(api)
    async for event in turn_events(agent, "Go."):
        if isinstance(event, HistoryAppended) and event.message["role"] == "assistant" and not desktop.done:
            await asyncio.sleep(0.05)
            assert desktop.done == [], "the action waits until its call is stored"
            break
    else:
        raise AssertionError("no assistant message came")
