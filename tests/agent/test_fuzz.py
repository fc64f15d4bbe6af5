"""Broken, cut, reordered and absurd reply streams: no crash, no hang, no unanswered call, nothing done by halves."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from cambio_lab.events import Event, ToolFinished, ToolStarted, TurnFailed, TurnFinished

from .conftest import MakeAgent, of, play
from .fake_desktop import FakeDesktop
from .scripted import Scripted, encode, events, reply, text, thinking, tool, use

WHOLE = [
    thinking("Wo ist es?"),
    text("Ich klicke – dort „oben“."),
    use("left_click", "toolu_a", coordinate=[100, 200]),
    tool("bash", "toolu_b", command="echo 'hi there'"),
    use("screenshot", "toolu_c"),
]


async def one(make: MakeAgent, stream: bytes) -> tuple[list[Event], Any]:
    """What a turn does with this stream as its first reply; a second request would get a plain end."""
    agent = make(Scripted(stream, reply(text("End."))), model_retries=0)
    async with asyncio.timeout(20):
        found = await play(agent)
    assert isinstance(found[-1], TurnFinished | TurnFailed)
    assert sum(isinstance(event, TurnFinished | TurnFailed) for event in found) == 1
    answered(agent.history)
    return found, agent


def answered(history: list[dict[str, Any]]) -> None:
    for index, message in enumerate(history):
        calls = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        if calls:
            assert [block["tool_use_id"] for block in history[index + 1]["content"]] == calls
        assert message["content"], "an empty message would be refused"


async def test_a_stream_cut_at_every_byte_runs_nothing(make: MakeAgent, desktop: FakeDesktop) -> None:
    stream = encode(events([text("„Da“"), use("left_click", "toolu_a", coordinate=[100, 200])]))
    end = stream.index(b"event: message_stop")
    assert len(stream) > 1000
    model = Scripted()
    agent = make(model, model_retries=0)
    for at in range(end):
        model.answers = [stream[:at]]
        async with asyncio.timeout(20):
            found = await play(agent)
        assert isinstance(found[-1], TurnFailed), at
        assert not of(found, ToolStarted), at
        assert len(agent.history) == 1, at
        agent.clear()
    assert desktop.done == []
    found, _ = await one(make, stream)
    assert len(of(found, ToolStarted)) == 1, "and the whole one runs"


async def test_missing_events_never_lead_to_half_a_call(make: MakeAgent, desktop: FakeDesktop) -> None:
    whole = events(WHOLE)
    for index, (name, _) in enumerate(whole):
        found, agent = await one(make, encode(whole[:index] + whole[index + 1 :]))
        for event in of(found, ToolStarted):
            assert event.arguments in [block["input"] for block in WHOLE if block["type"] == "tool_use"] or (
                name == "content_block_delta" and event.arguments == {}
            )
        await agent.aclose()
    clicks = [entry for entry in desktop.done if entry[0] == "click"]
    assert clicks and all(entry[2] == (100, 200) for entry in clicks), "never where the pointer happens to be"


async def test_a_click_without_arguments_is_meant_and_one_that_lost_them_is_not(
    make: MakeAgent, desktop: FakeDesktop
) -> None:
    whole = events([use("left_click", "toolu_a")])
    lost = [event for event in whole if event[0] != "content_block_delta"]
    found, _ = await one(make, encode(lost))
    (finished,) = of(found, ToolFinished)
    assert finished.is_error and "without any arguments" in finished.text
    assert not [entry for entry in desktop.done if entry[0] == "click"]
    found, _ = await one(make, encode(whole))
    assert not of(found, ToolFinished)[0].is_error
    assert [entry[2] for entry in desktop.done if entry[0] == "click"] == [None]


@pytest.mark.parametrize("seed", range(60))
async def test_reordered_and_repeated_events_do_no_harm(seed: int, make: MakeAgent) -> None:
    chance = random.Random(seed)
    found = events(WHOLE)
    for _ in range(chance.randint(1, 4)):
        a, b = chance.randrange(len(found)), chance.randrange(len(found))
        if chance.random() < 0.5:
            found[a], found[b] = found[b], found[a]
        else:
            found.insert(a, found[b])
    await one(make, encode(found))


@pytest.mark.parametrize("seed", range(60))
async def test_flipped_bytes_do_no_harm(seed: int, make: MakeAgent) -> None:
    chance = random.Random(seed)
    stream = bytearray(encode(events(WHOLE)))
    for _ in range(chance.randint(1, 5)):
        stream[chance.randrange(len(stream))] = chance.randrange(256)
    await one(make, bytes(stream))


async def test_unknown_events_and_deltas_are_passed_over(make: MakeAgent) -> None:
    whole = events([text("Hello."), use("screenshot")])
    strange: list[tuple[str, dict[str, Any]]] = [
        ("moon_phase", {"phase": "full"}),
        ("content_block_delta", {"index": 0, "delta": {"type": "hologram_delta", "hologram": "x"}}),
        ("ping", {}),
    ]
    mixed = [whole[0], *[item for event in whole[1:] for item in (event, strange[0])]]
    found, _ = await one(make, encode(mixed))
    assert len(of(found, ToolStarted)) == 1
    found, _ = await one(make, encode([*whole[:2], *strange, *whole[2:]]))
    assert len(of(found, ToolStarted)) == 1


async def test_a_stop_reason_that_never_comes_executes_nothing(make: MakeAgent, desktop: FakeDesktop) -> None:
    whole = events(WHOLE)
    whole[-2][1]["delta"]["stop_reason"] = None
    found, _ = await one(make, encode(whole))
    assert isinstance(found[-1], TurnFailed) and not of(found, ToolStarted) and not desktop.done


async def test_two_calls_with_one_id_are_a_broken_reply(make: MakeAgent) -> None:
    found, _ = await one(make, reply(use("left_click", "same"), use("screenshot", "same")))
    assert isinstance(found[-1], TurnFailed) and not of(found, ToolStarted)


@pytest.mark.parametrize(
    "arguments",
    [
        {"coordinate": [10**30, -5]},
        {"coordinate": [1, 2, 3]},
        {"coordinate": {"x": 1}},
        {"coordinate": [1.5, 2]},
        {"coordinate": None},
        {"coordinate": [1, 1], "text": "x" * 1_000_000},
        {"coordinate": [1, 1], "to_dict": "surprise", "__class__": "x"},
        {"": {"deep": [[[[[]]]]]}},
    ],
    ids=lambda value: json.dumps(value)[:40],
)
async def test_absurd_arguments_are_answered(make: MakeAgent, arguments: dict[str, Any]) -> None:
    found, agent = await one(make, reply(use("left_click", **arguments)))
    assert isinstance(found[-1], TurnFinished)
    assert len(agent.history) == 4


async def test_a_huge_text_is_typed_or_refused_in_bounded_time(make: MakeAgent, desktop: FakeDesktop) -> None:
    found, agent = await one(make, reply(use("type", text="y" * 5_000_000)))
    assert isinstance(found[-1], TurnFinished)
    assert agent.history[2]["content"][0]["is_error"] and ("type_text",) not in [entry[:1] for entry in desktop.done]


async def test_names_from_the_model_reach_no_attribute(make: MakeAgent) -> None:
    for name in ("__init__", "execute", "close", "_toolset_run", "perform", "tool_result", ""):
        found, agent = await one(make, reply({**use("screenshot"), "name": name}))
        assert isinstance(found[-1], TurnFinished)
        assert agent.history[2]["content"][0]["is_error"]


async def test_a_hundred_calls_in_one_reply(make: MakeAgent) -> None:
    found, _ = await one(make, reply(*[use("left_click") for _ in range(100)]))
    assert len(of(found, ToolStarted)) == 100
