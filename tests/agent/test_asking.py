"""The agent asks a person, or gives the desktop away: the turn waits, and goes on with what was said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cambio_lab.agent import Gate
from cambio_lab.events import QuestionAnswered, QuestionAsked, StatusChanged, ToolFinished, TurnFinished
from tests.messages_api import MessagesApi, Script, tool
from tests.messages_api import reply as answer

from .conftest import MakeAgent, names, of, play
from .fake_desktop import FakeDesktop
from .stream import turn_events

QUESTION = {"question": "Which colour?", "choices": ["red", "blue"], "default": "red"}


async def test_a_question_waits_for_its_answer(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(tool("ask_user", **QUESTION))], end="Blue it is.")
    agent = make(api, gate=Gate("always"), ask_user=True)
    found = []
    async for event in turn_events(agent, "Paint it."):
        found.append(event)
        if isinstance(event, QuestionAsked):
            assert event.question == "Which colour?" and event.choices == ["red", "blue"] and event.free_text
            assert agent.gate.question == event and not agent.gate.handed_over
            assert agent.gate.answer("another", "blue") is False
            assert agent.gate.answer(None, "blue", "ada") is True
            assert agent.gate.answer(None, "red") is False, "answered once"
    assert [(event.outcome, event.answer, event.by) for event in of(found, QuestionAnswered)] == [
        ("answered", "blue", "ada")
    ]
    assert [event.text for event in of(found, ToolFinished)] == ["The user answered: blue"]
    assert "ApprovalRequested" not in names(found), "a question is no risk"
    assert [event.status for event in of(found, StatusChanged)].count("waiting") == 1
    assert agent.gate.question is None


@pytest.mark.parametrize(("default", "words"), [("red", "Go on with the default: red"), ("", "Decide yourself")])
async def test_no_answer_in_time_is_the_default(default: str, words: str, make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(tool("ask_user", question="Which?", default=default))], end="So be it.")
    found = await play(make(api, ask_user=True, ask_timeout=0.05))
    assert [(event.outcome, event.answer) for event in of(found, QuestionAnswered)] == [("timeout", default)]
    (finished,) = of(found, ToolFinished)
    assert words in finished.text and not finished.is_error


async def test_a_hand_over_ends_with_a_look_at_the_screen(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(tool("hand_over", reason="Please log in."))], end="Thanks.")
    agent = make(api, ask_user=True)
    found = []
    async for event in turn_events(agent, "Read my mail."):
        found.append(event)
        if isinstance(event, QuestionAsked):
            assert ("release_all",) in desktop.done, "a held button would keep the person's mouse away"
            assert agent.gate.handed_over
            agent.gate.answer(None, "I am in")
            assert not agent.gate.handed_over
    (finished,) = of(found, ToolFinished)
    assert finished.text == "The user handed the desktop back and says: I am in" and finished.image


async def test_a_stop_ends_a_question(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(tool("ask_user", question="Which?"))], end="Never said.")
    agent = make(api, ask_user=True)
    found = []
    async for event in turn_events(agent, "Go."):
        found.append(event)
        if isinstance(event, QuestionAsked):
            asyncio.get_running_loop().call_soon(agent.gate.stop)
    assert [event.outcome for event in of(found, QuestionAnswered)] == ["stopped"]
    end = found[-1]
    assert isinstance(end, TurnFinished) and end.stopped


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"question": " "},
        {"question": "x" * 5000},
        {"question": "?", "choices": [""]},
        {"question": "?", "choices": 3},
    ],
)
async def test_a_question_that_makes_no_sense_is_the_models_to_repair(
    arguments: dict[str, Any], make: MakeAgent, api: MessagesApi
) -> None:
    api.policy = Script([answer(tool("ask_user", **arguments))], end="Oh.")
    found = await play(make(api, ask_user=True))
    assert of(found, QuestionAsked) == [] and of(found, ToolFinished)[0].is_error


async def test_without_the_option_there_is_no_such_tool(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([], end="Done.")
    await play(make(api))
    assert not {entry.get("name") for entry in api.requests[0].body["tools"]} & {"ask_user", "hand_over"}
