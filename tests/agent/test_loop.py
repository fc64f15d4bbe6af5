"""A turn from its message to its end: order of events, results, stop reasons."""

from __future__ import annotations

from typing import Any

import pytest

from cambio_lab.agent import TurnOptions
from cambio_lab.agent.gate import QueuedMessage
from cambio_lab.events import (
    HistoryAppended,
    HistoryDropped,
    MessageDelivered,
    ModelReplied,
    StatusChanged,
    TextDelta,
    ThinkingDelta,
    ToolAnnounced,
    ToolFinished,
    ToolStarted,
    TurnFailed,
    TurnFinished,
)
from tests.messages_api import MessagesApi, Script, member, refusal_reply, screenshot, think, tool
from tests.messages_api import reply as answer

from .conftest import MakeAgent, names, of, play
from .fake_desktop import FakeDesktop
from .scripted import Scripted, reply, text, thinking, use
from .stream import turn_events


async def test_the_events_of_a_turn_come_in_order(make: MakeAgent) -> None:
    model = Scripted(
        reply(thinking("Where is it?"), text("I look."), use("screenshot")),
        reply(text("Done.")),
    )
    found = await play(make(model), "Look.")
    assert [name for name in names(found) if name not in ("TextDelta", "ThinkingDelta")] == [
        "HistoryAppended",
        "StatusChanged",
        "RequestSent",
        "ToolAnnounced",
        "ModelReplied",
        "HistoryAppended",
        "StatusChanged",
        "ToolStarted",
        "ToolFinished",
        "HistoryAppended",
        "StatusChanged",
        "RequestSent",
        "ModelReplied",
        "HistoryAppended",
        "TurnFinished",
    ]
    assert "".join(event.text for event in of(found, ThinkingDelta)) == "Where is it?"
    announced = of(found, ToolAnnounced)[0]
    assert (announced.tool, announced.toolset) == ("screenshot", "computer")
    end = found[-1]
    assert isinstance(end, TurnFinished)
    assert (end.text, end.tool_calls, end.stopped, end.limit) == ("Done.", ["screenshot"], False, None)
    assert end.usage.requests == 2
    assert end.usage.cost_usd == pytest.approx(2 * (100 * 2 + 20 * 2.5 + 300 * 0.1 + 50 * 10) / 1e6)


async def test_the_pieces_since_the_last_call_are_the_final_text(make: MakeAgent) -> None:
    model = Scripted(reply(text("First I look."), use("screenshot")), reply(text("All is well, as far as I see.")))
    found = await play(make(model))
    last_call = max(index for index, event in enumerate(found) if isinstance(event, ToolFinished))
    pieces = [event.text for event in found[last_call:] if isinstance(event, TextDelta)]
    assert "".join(pieces) == found[-1].text == "All is well, as far as I see."  # type: ignore[attr-defined]


async def test_what_is_sent_matches_its_announced_digest(make: MakeAgent) -> None:
    import hashlib

    from cambio_lab.events import RequestSent

    model = Scripted(*[reply(use("screenshot")) for _ in range(6)], reply(text("Done.")))
    found = await play(make(model))
    told = [(event.body_sha256, event.body_bytes, event.images) for event in of(found, RequestSent)]
    assert told == [(hashlib.sha256(body).hexdigest(), len(body), index) for index, body in enumerate(model.bodies)]


async def test_a_batch_runs_in_order_and_ends_in_a_screenshot(make: MakeAgent, desktop: FakeDesktop) -> None:
    batch = [use("left_click", coordinate=[10, 20]), use("type", text="hello"), use("key", text="Return")]
    model = Scripted(reply(*batch), reply(text("Done.")))
    found = await play(make(model))
    assert [entry[0] for entry in desktop.done[:4]] == ["click", "type_text", "key", "screenshot"]
    results = model.requests[1]["messages"][-1]["content"]
    assert [result["content"][0]["text"] for result in results] == ["Clicked.", "Typed.", "Pressed Return."]
    assert [part["type"] for part in results[2]["content"]] == ["text", "image"]
    assert all(result["toolset_name"] == "computer" for result in results)
    assert of(found, ToolFinished)[-1].image is not None


@pytest.mark.parametrize("last", ["screenshot", "zoom"])
async def test_a_batch_that_ends_with_a_look_gets_no_second_one(
    make: MakeAgent, desktop: FakeDesktop, last: str
) -> None:
    arguments = {"region": [0, 0, 100, 100]} if last == "zoom" else {}
    model = Scripted(reply(use("left_click"), use(last, **arguments)), reply(text("Done.")))
    await play(make(model))
    assert [entry[0] for entry in desktop.done] == ["click", last, "release_all"]


async def test_a_failed_action_halts_the_rest_of_the_batch(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    batch = answer(
        member("left_click", coordinate=[10, 10]),
        member("key", text="NoSuchKey"),
        tool("bash", command="ls"),
        member("type", text="never"),
    )
    api.policy = Script([batch], end="I see.")
    found = await play(make(api))
    results = api.bodies[1]["messages"][-1]["content"]
    assert [bool(result.get("is_error")) for result in results] == [False, True, False, True]
    assert results[1]["content"][0]["text"] == "NoSuchKey is not a key name."
    assert results[3]["content"][0]["text"] == "Not executed: an earlier computer action in this turn failed."
    assert results[0]["content"][-1]["type"] == "image", "the model sees how far the good actions came"
    assert "run_command" in [entry[0] for entry in desktop.done], "other tools still run"
    assert "type_text" not in [entry[0] for entry in desktop.done]
    assert [event.ended for event in of(found, ToolFinished)] == ["ran", "ran", "ran", "skipped"]
    assert isinstance(found[-1], TurnFinished)


async def test_a_coordinate_outside_the_screen_is_refused_not_clamped(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([answer(member("left_click", coordinate=[1280, 10]))], end="Oh.")
    await play(make(api))
    result = api.bodies[1]["messages"][-1]["content"][0]
    assert result["is_error"] and "outside the 1280x800 screen" in result["content"][0]["text"]
    assert [entry[0] for entry in desktop.done] == ["release_all", "release_all"]


async def test_unknown_and_malformed_calls_are_answered(make: MakeAgent, desktop: FakeDesktop) -> None:
    calls = [
        {**use("fly", "a"), "toolset_name": "computer"},
        {"type": "tool_use", "id": "b", "name": "computer", "input": {"action": "screenshot"}},
        {"type": "tool_use", "id": "c", "name": "left_click", "input": {}},
        {**use("left_click", "d", coordinate="here")},
    ]
    for call in calls:
        model = Scripted(reply(call), reply(text("Done.")))
        await play(make(model))
        (result,) = model.requests[1]["messages"][-1]["content"]
        assert result["is_error"] and result["tool_use_id"] == call["id"]
        assert result.get("toolset_name") == call.get("toolset_name")
    assert {entry[0] for entry in desktop.done} == {"release_all"}


async def test_an_exception_in_the_desktop_never_reaches_the_model_verbatim(
    make: MakeAgent, desktop: FakeDesktop
) -> None:
    def fail() -> None:
        raise RuntimeError("connection to 10.1.2.3 with token s3cret")

    desktop.on["click"] = fail
    model = Scripted(reply(use("left_click")), reply(text("Done.")))
    await play(make(model))
    assert b"s3cret" not in model.bodies[1]
    assert b"left_click failed inside the desktop." in model.bodies[1]


# Stop reasons
async def test_max_tokens_runs_nothing_raises_the_limit_and_goes_on(
    make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    cut = answer("I will click.", member("left_click", coordinate=[1, 1]), stop_reason="max_tokens")
    api.policy = Script([cut], end="Done.")
    found = await play(make(api))
    assert ("click", "left") not in [entry[:2] for entry in desktop.done]
    assert not of(found, ToolStarted)
    assert api.bodies[1]["max_tokens"] == 2 * api.bodies[0]["max_tokens"]
    assert found[-1].text == "Done."  # type: ignore[attr-defined]


async def test_a_text_cut_at_max_tokens_is_continued_and_adds_up(make: MakeAgent, api: MessagesApi) -> None:
    script = [answer("One, two, ", stop_reason="max_tokens"), answer("three.")]
    api.policy = lambda view: script.pop(0)
    found = await play(make(api))
    assert found[-1].text == "One, two, three."  # type: ignore[attr-defined]


async def test_replies_that_are_cut_off_for_ever_end_the_turn(make: MakeAgent) -> None:
    model = Scripted(reply(text("More and "), stop_reason="max_tokens"), repeat=True)
    found = await play(make(model))
    assert isinstance(found[-1], TurnFailed) and "cut off" in found[-1].error
    assert len(model.requests) == 4


async def test_an_empty_end_turn_is_nudged_once_and_never_kept(make: MakeAgent) -> None:
    model = Scripted(reply(use("screenshot")), reply(), reply(text("Yes, done.")))
    found = await play(make(model))
    assert found[-1].text == "Yes, done."  # type: ignore[attr-defined]
    assert all(message["content"] for message in model.requests[2]["messages"])
    assert model.requests[2]["messages"][-1]["content"][0]["text"].startswith("Please go on")


async def test_two_empty_replies_end_the_turn(make: MakeAgent) -> None:
    model = Scripted(reply(thinking()), repeat=True)
    found = await play(make(model))
    assert isinstance(found[-1], TurnFinished) and found[-1].text == ""
    assert len(model.requests) == 2


async def test_an_end_turn_with_calls_runs_none_of_them(make: MakeAgent, desktop: FakeDesktop) -> None:
    model = Scripted(reply(text("Bye."), use("left_click"), stop_reason="end_turn"))
    agent = make(model)
    found = await play(agent)
    assert isinstance(found[-1], TurnFinished) and not of(found, ToolStarted)
    assert agent.history[-1]["content"][0]["content"][0]["text"] == "Not executed: the turn ended early."


async def test_pause_turn_is_sent_back_unchanged(make: MakeAgent) -> None:
    model = Scripted(reply(text("Wait, "), stop_reason="pause_turn"), reply(text("done.")))
    found = await play(make(model))
    assert model.requests[1]["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "Wait, "}]}
    assert found[-1].text == "Wait, done."  # type: ignore[attr-defined]


async def test_a_refusal_drops_the_turn_and_says_its_category(make: MakeAgent, api: MessagesApi) -> None:
    agent = make(api)
    await play(agent, "Hello.")
    before = agent.history
    api.policy = Script([answer(screenshot()), refusal_reply("cyber")])
    found = await play(agent, "Do something bad.")
    assert isinstance(found[-1], TurnFailed) and "cyber" in found[-1].error and not found[-1].fatal
    assert of(found, HistoryDropped)[0].count == 3
    assert agent.history == before
    api.policy = Script([], end="Better.")
    assert (await play(agent, "Something else."))[-1].text == "Better."  # type: ignore[attr-defined]


async def test_an_exceeded_context_is_folded_and_the_task_goes_on(make: MakeAgent, api: MessagesApi) -> None:
    script = [
        answer(screenshot()),
        answer("I am", member("left_click"), stop_reason="model_context_window_exceeded"),
    ]
    calls = 0

    def policy(view: Any) -> Any:
        nonlocal calls
        calls += 1
        return script[calls - 1] if calls <= 2 else answer("Done after all.")

    api.policy = policy
    agent = make(api)
    found = await play(agent, "Find the needle.")
    assert found[-1].text == "Done after all."  # type: ignore[attr-defined]
    (summary,) = [message for message in api.bodies[2]["messages"] if message["role"] == "user"]
    assert "Find the needle." in summary["content"][0]["text"]
    assert summary["content"][1]["type"] == "image"
    assert len(agent.history) == 2


async def test_a_context_that_stays_too_small_ends_the_turn(make: MakeAgent) -> None:
    model = Scripted(reply(text("I"), stop_reason="model_context_window_exceeded"), repeat=True)
    found = await play(make(model))
    assert isinstance(found[-1], TurnFailed) and "does not fit" in found[-1].error


async def test_an_unknown_stop_reason_counts_as_finished(make: MakeAgent) -> None:
    found = await play(make(Scripted(reply(text("Hm."), stop_reason="something_new"))))
    assert isinstance(found[-1], TurnFinished) and found[-1].stop_reason == "something_new"


# Conversation and settings
async def test_thinking_is_echoed_so_that_a_bound_model_accepts_it(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(think(f"thought {n}"), f"Step {n}.", screenshot()) for n in range(4)], end="Done.")
    agent = make(api)
    for _ in range(2):
        assert isinstance((await play(agent))[-1], TurnFinished)
    assert api.bodies[-1]["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert api.bodies[-1]["output_config"] == {"effort": "medium"}


async def test_a_message_can_change_effort_and_model_for_its_turn(make: MakeAgent, api: MessagesApi) -> None:
    agent = make(api)
    await play(agent, options=TurnOptions(effort="high", model="claude-opus-5-5"))
    await play(agent)
    assert [(body["model"], body["output_config"]["effort"]) for body in api.bodies] == [
        ("claude-opus-5-5", "high"),
        ("claude-sonnet-5-5", "medium"),
    ]


async def test_a_model_with_another_tool_version_is_refused_for_one_message(make: MakeAgent) -> None:
    found = await play(make(Scripted()), options=TurnOptions(model="claude-sonnet-4-5"))
    assert isinstance(found[-1], TurnFailed) and "another computer tool" in found[-1].error


async def test_a_conversation_is_taken_up_from_its_history(make: MakeAgent, api: MessagesApi) -> None:
    api.policy = Script([answer(think("ah"), screenshot())], end="Done.")
    first = make(api)
    appended = [event.message for event in await play(first) if isinstance(event, HistoryAppended)]
    assert appended == first.history
    second = make(api, history=appended)
    assert isinstance((await play(second, "And now?"))[-1], TurnFinished)
    assert len(api.bodies[2]["messages"]) == len(appended) + 1


async def test_a_cleared_conversation_starts_anew_but_stays_counted(make: MakeAgent, api: MessagesApi) -> None:
    agent = make(api)
    await play(agent)
    spent = agent.usage
    agent.clear()
    await play(agent, "Afresh.")
    assert len(api.bodies[-1]["messages"]) == 1
    assert agent.usage.requests == spent.requests + 1


async def test_additions_to_the_system_prompt_follow_ours(make: MakeAgent, api: MessagesApi) -> None:
    await play(make(api, system="Speak like a pirate."))
    assert api.bodies[0]["system"][0]["text"].endswith("Speak like a pirate.")


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        ("Done. The flight costs 120 euros.", False),
        ("There are two files. Which one should I delete?", True),
        ("I need your password to go on.", False),  # the prompt asks for a question at the end
        ("Let me know if you need anything else!", False),
        ("**Shall I book it?**", True),
        ("The page asked “Are you sure?” and I confirmed.\n\nThe order is in.", False),
        ("", False),
    ],
)
async def test_a_closing_question_needs_input(make: MakeAgent, words: str, asks: bool) -> None:
    model = Scripted(reply(text(words)) if words else reply(), repeat=True)
    assert (await play(make(model)))[-1].needs_input is asks  # type: ignore[attr-defined]


async def test_every_reply_is_priced_with_its_stop_reason(make: MakeAgent) -> None:
    found = await play(make(Scripted(reply(use("screenshot")), reply(text("Done.")))))
    assert [event.stop_reason for event in of(found, ModelReplied)] == ["tool_use", "end_turn"]
    assert {event.status for event in of(found, StatusChanged)} == {"thinking", "acting"}


@pytest.mark.parametrize("last", [False, True])
async def test_a_message_during_a_turn_follows_the_results_of_the_calls(
    make: MakeAgent, api: MessagesApi, last: bool
) -> None:
    """The strict stand-in refuses text before results; after a final answer the turn goes on."""
    replies = iter([answer("I look.", screenshot()), answer("Done."), answer("Also done.")])
    api.policy = lambda view: next(replies)
    agent = make(api)
    found = []
    async for event in turn_events(agent, "Look."):
        found.append(event)
        if isinstance(event, ModelReplied) and event.request_index == (2 if last else 1):
            agent.gate.messages.extend([QueuedMessage("msg-1", "Be quick."), QueuedMessage("msg-2", "And kind.")])
    assert not agent.gate.messages
    assert [event.message_id for event in of(found, MessageDelivered)] == ["msg-1", "msg-2"]
    kinds = [[block["type"] for block in message["content"]] for message in agent.history]
    before = [["text"], ["text", "tool_use"], ["tool_result"]] + ([["text"]] if last else [])
    assert kinds == [*before, ["text"], ["text"], ["text"]]
    (end,) = of(found, TurnFinished)
    assert end.text == ("Also done." if last else "Done.")
