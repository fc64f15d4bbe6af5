"""Typed answers over the strict stand-in: asked for, checked, asked for once more, told in words where need be."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cambio_lab.agent import TurnOptions
from cambio_lab.agent.options import AnswerSchema
from cambio_lab.errors import AnswerDoesNotFit, InvalidRequest
from cambio_lab.events import StatusChanged, TurnFailed, TurnFinished
from tests.messages_api import MessagesApi, reply, screenshot
from tests.messages_api.policies import Policy
from tests.messages_api.replies import Reply

from .conftest import MakeAgent, of, play

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "stock": {"type": "integer", "minimum": 0}},
    "required": ["name", "stock"],
}
OPTIONS = TurnOptions(answer_schema=SCHEMA)


def in_turn(*replies: Reply) -> Policy:
    """Give one reply after the other, whatever is asked between them."""
    left = iter(replies)
    return lambda _: next(left)


async def test_the_answer_of_a_turn_with_calls_is_a_value(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = in_turn(reply(screenshot()), reply('{"name": "apples", "stock": 12}'))
    end = (await play(make(api), options=OPTIONS))[-1]
    assert isinstance(end, TurnFinished) and end.answer == {"name": "apples", "stock": 12}
    assert [body["output_config"]["effort"] for body in api.bodies] == ["medium", "medium"]
    sent = api.bodies[0]["output_config"]["format"]
    assert sent["type"] == "json_schema" and sent["schema"]["additionalProperties"] is False
    assert "minimum" not in sent["schema"]["properties"]["stock"], "the service refuses bounds"


async def test_an_answer_that_does_not_fit_is_asked_for_once_more(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = in_turn(reply('{"name": "apples", "stock": -1}'), reply('{"name": "apples", "stock": 1}'))
    found = await play(make(api), options=OPTIONS)
    assert isinstance(found[-1], TurnFinished) and found[-1].text == '{"name": "apples", "stock": 1}'
    assert "$.stock: -1 is less than the minimum of 0" in api.bodies[1]["messages"][-1]["content"][0]["text"]
    assert [event.metadata["event"] for event in of(found, StatusChanged) if event.metadata] == ["answer_refused"]


async def test_two_wrong_answers_end_the_turn_with_an_error(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = in_turn(reply('{"name": "apples", "stock": -1}'), reply('{"name": "apples", "stock": -1}'))
    end = (await play(make(api), options=OPTIONS))[-1]
    assert isinstance(end, TurnFailed) and end.kind == "AnswerDoesNotFit" and "minimum of 0" in end.error
    assert len(api.bodies) == 2


async def test_a_model_without_structured_outputs_is_told_the_schema(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = in_turn(reply("Twelve."), reply('```json\n{"name": "apples", "stock": 12}\n```'))
    end = (await play(make(api, model="claude-opus-4-1"), options=OPTIONS))[-1]
    assert isinstance(end, TurnFinished) and end.answer["stock"] == 12
    assert "output_config" not in api.bodies[0]
    assert json.dumps(SCHEMA) in api.bodies[0]["messages"][0]["content"][0]["text"]


async def test_a_schema_that_the_service_refuses_is_not_repaired_away(make: MakeAgent) -> None:
    recursive = {"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}
    with MessagesApi() as api:
        end = (await play(make(api), options=TurnOptions(answer_schema=recursive)))[-1]
        assert isinstance(end, TurnFailed) and "recursion is not supported" in end.error + end.details
        assert len(api.requests) == 1


async def test_the_next_message_has_no_schema(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = in_turn(reply('{"name": "a", "stock": 1}'), reply("Just words."))
    agent = make(api)
    await play(agent, options=OPTIONS)
    assert (await play(agent))[-1].text == "Just words."  # type: ignore[attr-defined]
    assert "format" not in api.bodies[1]["output_config"]


@pytest.mark.parametrize(
    ("schema", "text", "problem"),
    [
        (SCHEMA, "no", "not JSON"),
        (SCHEMA, '{"name": "\\ud800", "stock": 1}', "not JSON"),
        (SCHEMA, '{"name": "a", "stock": 1e999}', "not JSON"),
        ({"type": "array"}, "[" * 60 + "]" * 60, "nested"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "1", "cannot be checked"),
        ({"$ref": "#"}, "1", "cannot be checked"),
    ],
)
def test_what_cannot_be_an_answer(schema: dict[str, Any], text: str, problem: str) -> None:
    with pytest.raises(AnswerDoesNotFit, match=problem):
        AnswerSchema(schema).read(text)


def test_a_hostile_pattern_is_not_run() -> None:
    assert AnswerSchema({"type": "string", "pattern": "^(a+)+$"}).read(json.dumps("a" * 60 + "!"))


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a JSON schema"):
        AnswerSchema({"type": "thing"})
