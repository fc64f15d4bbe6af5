"""Approval: which calls ask, what is shown, and that no answer is a denial."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cambio_lab.agent import Gate, LimitReached
from cambio_lab.agent.computer import ACTIONS
from cambio_lab.agent.tools import MEMBERS, needs_approval, parse_policy, shown
from cambio_lab.errors import InvalidRequest
from cambio_lab.events import ApprovalDecided, ApprovalRequested, StatusChanged, ToolFinished, ToolStarted, TurnFinished
from tests.messages_api import MessagesApi, Script, member, screenshot, tool
from tests.messages_api import reply as answer

from .conftest import MakeAgent, names, of, play
from .fake_desktop import FakeDesktop
from .stream import turn_events

EDITOR = "str_replace_based_edit_tool"


def test_the_gate_knows_exactly_the_actions_there_are() -> None:
    assert frozenset(ACTIONS) == MEMBERS


@pytest.mark.parametrize(
    ("tool_name", "arguments", "risky"),
    [
        ("screenshot", {}, False),
        ("left_click", {}, False),
        ("scroll", {}, False),
        ("type", {"text": "x"}, True),
        ("key", {"text": "Return"}, True),
        ("hold_key", {}, True),
        ("bash", {"command": "ls"}, True),
        (EDITOR, {"command": "view", "path": "a"}, False),
        (EDITOR, {"command": "create", "path": "a"}, True),
        (EDITOR, {"command": "str_replace", "path": "a"}, True),
        (EDITOR, {}, True),
        ("my_function", {}, False),
    ],
)
def test_what_each_policy_asks_for(tool_name: str, arguments: dict[str, Any], risky: bool) -> None:
    assert needs_approval("risky", tool_name, arguments) is risky
    assert needs_approval("always", tool_name, arguments) is True
    assert needs_approval("never", tool_name, arguments) is False
    assert needs_approval(frozenset({tool_name}), tool_name, arguments) is True
    assert needs_approval(frozenset({"wait"}), tool_name, arguments) is False


def test_a_limit_reads_as_its_words() -> None:
    reached = LimitReached("max_steps", "The turn has made the 3 tool calls it may make.")
    assert (str(reached), reached.name) == ("The turn has made the 3 tool calls it may make.", "max_steps")


def test_policies_are_parsed_or_refused() -> None:
    assert parse_policy("risky") == "risky"
    assert parse_policy(["left_click", "bash"]) == frozenset({"left_click", "bash"})
    for wrong in ("sometimes", ["fly"], 3, None, [1]):
        with pytest.raises(InvalidRequest):
            parse_policy(wrong)


def test_invisible_characters_are_shown() -> None:
    line = shown("type", {"text": "ls\u202e #\u200b\n\x1b[0m аpple"})
    assert line.isascii() and line.isprintable()
    assert "\\u202e" in line and "\\u200b" in line and "\\u001b" in line and "\\u0430pple" in line


async def test_an_approved_call_runs_and_says_who_agreed(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(member("left_click"), member("type", text="hi"))], end="Done.")
    agent = make(api, gate=Gate("risky", 5.0))
    found = []
    async for event in turn_events(agent, "Go."):
        found.append(event)
        if isinstance(event, ApprovalRequested):
            assert event.shown == 'type {"text": "hi"}' and event.tool == "type"
            assert [entry[0] for entry in desktop.done] == ["click"], "only what needs no approval ran"
            assert agent.gate.pending == event
            assert agent.gate.decide("another", True) is False
            assert agent.gate.decide(event.tool_use_id, True, "ada") is True
            assert agent.gate.decide(event.tool_use_id, False) is False, "decided once"
    assert [(event.verdict, event.by) for event in of(found, ApprovalDecided)] == [("approved", "ada")]
    assert [event.status for event in of(found, StatusChanged)].count("waiting_approval") == 1
    assert agent.gate.pending is None
    assert ("type_text", "hi") in desktop.done


async def test_an_approved_call_waits_while_a_person_has_the_mouse(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(member("type", text="hi"))], end="Done.")
    agent = make(api, gate=Gate("risky", 5.0))
    shown = []
    async for event in turn_events(agent, "Go."):
        if isinstance(event, ApprovalRequested):
            agent.gate.pause()  # as taking control does
            agent.gate.decide(None, True)
        if isinstance(event, StatusChanged):
            shown.append(event.status)
            if event.status == "paused":
                assert "type_text" not in [entry[0] for entry in desktop.done]
                agent.gate.resume()
    assert shown[-3:] == ["paused", "acting", "thinking"]
    assert ("type_text", "hi") in desktop.done


@pytest.mark.parametrize("how", ["denied", "timeout"])
async def test_a_denial_halts_the_batch(how: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop) -> None:
    api.policy = Script([answer(member("type", text="hi"), member("left_click"), screenshot())], end="As you wish.")
    agent = make(api, gate=Gate("risky", 0.1))
    found = []
    async for event in turn_events(agent, "Go."):
        found.append(event)
        if isinstance(event, ApprovalRequested) and how == "denied":
            agent.gate.decide(None, False)
    assert of(found, ApprovalDecided)[0].verdict == how
    assert not of(found, ToolStarted)
    assert {entry[0] for entry in desktop.done} == {"release_all"}
    results = api.bodies[1]["messages"][-1]["content"]
    assert "Do not retry it" in results[0]["content"][0]["text"]
    assert results[1]["content"][0]["text"] == "Not executed: an earlier computer action in this turn failed."
    assert isinstance(found[-1], TurnFinished) and found[-1].text == "As you wish."


async def test_each_call_of_a_batch_is_asked_for(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(tool("bash", command="ls"), member("key", text="Return"))], end="Done.")
    agent = make(api, gate=Gate("always", 5.0))
    asked = []
    async for event in turn_events(agent, "Go."):
        if isinstance(event, ApprovalRequested):
            asked.append(event.tool)
            agent.gate.decide(None, True)
    assert asked == ["bash", "key"]


async def test_the_toolset_itself_refuses_what_the_gate_did_not_admit(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(member("type", text="sneaky"))], end="Done.")
    gate = Gate("never")
    gate.admit = lambda tool_use_id: None  # type: ignore[method-assign]  # a loop that forgot to ask
    found = await play(make(api, gate=gate))
    assert of(found, ToolFinished)[0].is_error
    assert "type_text" not in [entry[0] for entry in desktop.done]


async def test_the_policy_can_change_between_turns(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(member("type", text="x"))], end="Done.")
    agent = make(api, gate=Gate("never"))
    assert "ApprovalRequested" not in names(await play(agent))
    agent.gate.policy = parse_policy(["type"])
    agent.gate.timeout = 0.01
    assert "ApprovalRequested" in names(await play(agent))


async def test_a_call_that_cleans_up_slowly_is_waited_for_before_the_next(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    order: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.3)
            order.append("cleaned up")

    desktop.on["click"] = stubborn
    api.policy = Script([answer(member("left_click"))])
    agent = make(api)
    async for event in turn_events(agent, "Go."):
        if isinstance(event, ToolStarted):
            asyncio.get_running_loop().call_later(0.02, agent.gate.stop)
    del desktop.on["click"]
    desktop.on["move"] = lambda: order.append("moved")
    api.policy = Script([answer(member("mouse_move", coordinate=[1, 1]))], end="Done.")
    await play(agent)
    assert order == ["cleaned up", "moved"]
