"""A session from its first message to its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.agent.gate import Verdict
from cambio_lab.errors import (
    InvalidRequest,
    MessageLimitReached,
    SessionConflict,
    SessionEnded,
    SessionNotFound,
    TurnRunning,
)
from cambio_lab.events import (
    ApprovalDecided,
    ApprovalRequested,
    Event,
    HistoryDropped,
    HumanInput,
    MessageDelivered,
    ModelReplied,
    Retrying,
    StatusChanged,
    ThinkingDelta,
    ToolFinished,
    ToolStarted,
    TurnFailed,
    TurnFinished,
    Usage,
)
from cambio_lab.sessions import Subscription
from cambio_lab.sessions.session import Session
from cambio_lab.sessions.state import MOST_QUEUED
from cambio_lab.store import MessageQuery

from .parts import COST, Bench, MemoryDesktop, Script, ScriptedAgent, kinds, until, within, work


async def heard(reader: Subscription, until_kind: str) -> list[dict[str, Any]]:
    """Messages up to the one of this kind; checks that sequences have no gap."""
    found: list[dict[str, Any]] = []
    position = reader.position
    async with asyncio.timeout(10):
        async for sequence, text in reader:
            message = json.loads(text)
            assert message["sequence"] == sequence == position + 1
            position = sequence
            found.append(message)
            if kinds([message]) == [until_kind]:
                return found
    raise AssertionError(f"ended without {until_kind}: {kinds(found)}")


async def test_a_turn_is_told_in_order_and_stored(bench: Bench) -> None:
    bench.script = work(2)
    session = await bench.registry.create("first", {"timeout": 60})
    reader = session.subscribe()
    message_id = await session.send("Look", {"who": "me"})
    page = await bench.store.messages.page(session.id, MessageQuery())
    assert [(row.id, row.content, row.metadata) for row in page.rows] == [(message_id, "Look", {"who": "me"})]

    messages = await heard(reader, "status:idle")
    assert kinds(messages) == [
        "status:user_message",
        *["tool_execution:started", "tool_execution:completed"] * 2,
        "agent_response",
        "status:idle",
    ]
    assert messages[0]["metadata"]["message_id"] == message_id
    done = messages[2]
    assert done["result"]["dimensions"] == "320x320"
    sha256 = done["result"]["image_path"].rsplit("/", 1)[1].removesuffix(".png")
    assert (await bench.store.screenshots.read(sha256)) is not None
    reply = messages[-2]
    assert (reply["content"], reply["metadata"]["tool_calls"]) == ("Done.", ["screenshot", "screenshot"])

    stored = (await bench.store.messages.page(session.id, MessageQuery(role="assistant"))).rows
    assert [(row.id, row.content) for row in stored] == [(reply["metadata"]["message_id"], "Done.")]
    assert stored[0].metadata["tool_calls"] == ["screenshot", "screenshot"]
    assert [step.status for step in await bench.store.steps.of(session.id)] == ["completed", "completed"]
    assert await bench.store.transcript.load(session.id) == bench.agents[0].history
    assert session.describe()["usage"]["cost_usd"] == 0.25


async def test_who_sees_the_answer_may_send_at_once(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe()
    for number in range(20):
        await session.send(f"message {number}")
        await heard(reader, "agent_response")
    assert (await bench.store.messages.page(session.id, MessageQuery())).total == 40


async def test_a_second_message_is_refused_while_one_runs(bench: Bench) -> None:
    hold = asyncio.Event()
    bench.script = work(1, hold=hold)
    session = await bench.registry.create()
    reader = session.subscribe()
    outcomes = await asyncio.gather(*(session.send(f"m{n}") for n in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [str] + [TurnRunning] * 4
    with pytest.raises(TurnRunning):
        await session.clear_history()
    hold.set()
    await heard(reader, "status:idle")
    assert (await bench.store.messages.page(session.id, MessageQuery(role="user"))).total == 1


def steered(hold: asyncio.Event) -> Script:
    """Reads what came during the turn once ``hold`` is set, as the loop does before a request."""

    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield ModelReplied(1, "end_turn", COST, 1.0, "Done.")
        await agent.gate.race(hold.wait())
        while (message := agent.gate.next_message()) is not None:
            yield MessageDelivered(message.message_id, message.content)
            yield agent.say("user", message.content)
        yield TurnFinished("All done.", [], 0.1, COST)

    return script


async def test_a_message_during_a_turn_is_queued_delivered_and_stored_in_its_place(bench: Bench) -> None:
    hold = asyncio.Event()
    bench.script = steered(hold)
    session = await bench.registry.create(None, {"max_messages": 3})
    reader = session.subscribe()
    first = await session.send("Begin")
    with pytest.raises(TurnRunning):
        await session.send("Refused")
    second = await session.send("Be quick", {"client": 1}, when="next")
    third = await session.send("Never mind", when="next")
    assert session.snapshot_status()["metadata"]["queued"] == [
        {"message_id": second, "message": "Be quick"},
        {"message_id": third, "message": "Never mind"},
    ]
    with pytest.raises(MessageLimitReached):
        await session.send("Too many", when="next")
    await session.take_back(third)
    with pytest.raises(SessionConflict):
        await session.take_back(third)
    hold.set()
    told = await heard(reader, "status:idle")
    assert [kind for kind in kinds(told) if "message" in kind or "response" in kind] == [
        "status:user_message",
        "status:message_queued",
        "status:message_queued",
        "status:message_withdrawn",
        "status:message_delivered",
        "agent_response",
    ]
    page = await bench.store.messages.page(session.id, MessageQuery())
    assert [(row.id, row.content) for row in page.rows[:2]] == [(first, "Begin"), (second, "Be quick")]
    assert page.rows[1].metadata == {"queued": True, "during": first} and page.rows[2].content == "All done."
    assert page.rows[2].metadata["said"] == [{"step": 1, "content": "Done."}]
    await session.send("The third of three")


async def test_a_flood_of_messages_during_a_turn_is_refused(bench: Bench) -> None:
    bench.script = steered(asyncio.Event())
    session = await bench.registry.create()
    await session.send("Begin")
    for number in range(MOST_QUEUED):
        await session.send(f"{number}", when="next")
    with pytest.raises(SessionConflict, match="20 messages wait"):
        await session.send("One more", when="next")
    await session.stop()


async def test_a_message_that_the_agent_did_not_read_is_withdrawn_by_a_stop_and_by_a_crash(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.start()
    bench.script = steered(asyncio.Event())
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("Begin")
    message_id = await session.send("Be quick", when="next")
    await session.stop()
    told = await heard(reader, "status:idle")
    (gone,) = (one["metadata"] for one in told if kinds([one]) == ["status:message_withdrawn"])
    assert gone["message_id"] == message_id and "turn ended" in gone["reason"]
    await session.send("Begin")
    message_id = await session.send("Be quick", when="next")
    await bench.crash()
    await bench.start()
    bench.registry.get(session.id)
    events = await bench.store.events.records(session.id, kinds=["MessageWithdrawn"])
    assert [json.loads(event.record or "")["message_id"] for event in events][1:] == [message_id]
    await bench.stop()


@pytest.mark.parametrize("when", ["at once", "later"])
async def test_stop_ends_the_turn_with_an_answer(bench: Bench, when: str) -> None:
    bench.script = work(1, hold=asyncio.Event())
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.stop()  # nothing runs: nothing happens
    await session.send("Look")
    if when == "later":
        await heard(reader, "tool_execution:started")
    await session.stop()
    messages = await within(1, heard(reader, "status:idle"))
    assert kinds(messages)[-2:] == ["agent_response", "status:idle"]
    assert messages[-2]["metadata"]["stopped"] is True
    bench.script = work(1)
    await session.send("Again")
    assert kinds(await heard(reader, "status:idle"))[-2] == "agent_response"


async def test_pause_and_control_hold_the_agent(bench: Bench) -> None:
    bench.script = work(3, pause=0.01)
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.take_control("ann")
    await session.send("Look")
    await asyncio.sleep(0.05)
    assert session.steps == 0
    with pytest.raises(SessionConflict, match="ann"):
        await session.resume()
    await session.give_back("bob")
    assert session.control == "ann"
    await session.record_human_input(HumanInput("ann", pointer_events=3))
    await session.give_back("ann")
    messages = await heard(reader, "status:idle")
    assert kinds(messages)[:4] == ["status:control", "status:user_message", "status:human_input", "status:control"]
    assert messages[3]["metadata"]["viewer"] is None

    await session.send("Once more")
    await heard(reader, "tool_execution:started")
    await session.pause()
    await until(lambda: session.gate.paused)
    before = session.steps
    await asyncio.sleep(0.05)
    assert session.steps <= before + 1
    await session.resume()
    await heard(reader, "status:idle")


async def test_the_mouse_comes_back_when_its_holder_leaves(bench: Bench) -> None:
    class Ann:
        name = "ann"

        def may_act_changed(self) -> None: ...
        def report(self) -> None: ...

        def session_ended(self, reason: str) -> None: ...

    session = await bench.registry.create()
    one, two = Ann(), Ann()
    session.add_viewer(one)
    session.add_viewer(two)
    await session.take_control("ann")
    await session.remove_viewer(one)
    assert session.control == "ann"
    await session.remove_viewer(two)
    assert session.control is None


async def test_viewers_are_told_when_they_may_not_act_any_more(bench: Bench) -> None:
    session = await bench.registry.create()
    told: list[bool] = []

    class Ann:
        name = "ann"

        def may_act_changed(self) -> None:
            told.append(session.may_act("ann"))

        def report(self) -> None: ...

        def session_ended(self, reason: str) -> None: ...

    session.add_viewer(Ann())
    for change, expected in (
        (session.take_control("ann"), True),
        (session.take_control("bob"), False),
        (session.give_back("bob"), True),
        (session.send("Look"), False),
    ):
        await change
        assert told[0] is expected
        told.clear()


async def test_the_agents_buttons_come_up_for_a_viewer_once_its_call_has_ended(bench: Bench) -> None:
    hold = asyncio.Event()
    bench.script = work(2, hold=hold)
    session = await bench.registry.create()
    desktop = bench.provider.open[session.desktop.desktop_id]
    reader = session.subscribe()
    await session.send("Look")
    await until(lambda: session.steps == 2)
    await session.take_control("ann")
    assert ("release_all",) not in desktop.done
    hold.set()
    await until(lambda: ("release_all",) in desktop.done)
    await session.give_back("ann")
    await heard(reader, "status:idle")

    bench.script = work(1)
    desktop.done.clear()
    await session.take_control("ann")
    assert ("release_all",) not in desktop.done  # no turn: nothing of the agent's is down
    await session.send("Look")
    await session.take_control("bob")
    assert ("release_all",) in desktop.done
    await session.give_back()
    await heard(reader, "status:idle")


async def test_approval_is_asked_shown_and_decided(bench: Bench) -> None:
    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield agent.gate.request("toolu_9", "type", {"text": content})
        verdict, by = await agent.gate.verdict()
        yield ApprovalDecided("toolu_9", verdict, by)
        yield TurnFinished(verdict, [], 0.1, Usage())

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    with pytest.raises(SessionConflict):
        await session.approve()
    await session.send("hello")
    await heard(reader, "status:approval")
    assert session.state == "waiting_approval"
    assert session.snapshot_status()["metadata"]["approval"]["tool_use_id"] == "toolu_9"
    with pytest.raises(SessionConflict):
        await session.approve("toolu_1")
    await session.approve("toolu_9", by="ann")
    messages = await heard(reader, "agent_response")
    assert messages[-1]["content"] == "approved"
    assert messages[0]["metadata"]["by"] == "ann"


async def test_a_call_that_did_not_run_did_not_fail(bench: Bench) -> None:
    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield ToolFinished("toolu_1", "wait", "computer", {}, 1, True, "Interrupted.", ended="interrupted")
        yield ToolFinished("toolu_2", "screenshot", "computer", {}, 2, True, "Not executed.", ended="skipped")
        yield TurnFinished("", ["wait", "screenshot"], 0.1, COST)

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("Look.")
    told = await heard(reader, "status:idle")
    assert [step.status for step in await bench.store.steps.of(session.id)] == ["interrupted", "skipped"]
    calls = [message for message in told if message["type"] == "tool_execution"]
    assert [(call["status"], call["metadata"]["ended"]) for call in calls] == [
        ("failed", "interrupted"),
        ("failed", "skipped"),
    ]


@pytest.mark.parametrize("verdict", ["denied", "timeout"])
async def test_a_denied_call_is_stored_as_denied_and_thinking_is_kept(bench: Bench, verdict: Verdict) -> None:
    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        for piece in ("Dropped.", "I should ", "type."):
            yield ThinkingDelta(piece)
            if piece == "Dropped.":
                yield Retrying(1, 0.0, 0.0, "overloaded")
        yield ModelReplied(1, "tool_use", COST, 1.0)
        yield ApprovalRequested("toolu_1", "type", {"text": "x"}, "type x", 0.0)
        yield ApprovalDecided("toolu_1", verdict, "ann")
        yield ToolFinished("toolu_1", "type", "computer", {"text": "x"}, 1, True, "The user denied type.")
        yield TurnFinished("", ["type"], 0.1, COST)

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("Type.")
    told = await heard(reader, "status:idle")
    (step,) = await bench.store.steps.of(session.id)
    assert step.status == "denied"
    (finished,) = (message for message in told if message["type"] == "tool_execution")
    assert (finished["status"], finished["metadata"]["denied"]) == ("failed", True)
    (usage,) = (message for message in told if message.get("metadata", {}).get("event") == "usage")
    assert usage["metadata"]["thinking"] == "I should type."
    (record,) = await bench.store.events.records(session.id, kinds=["ModelReplied"])
    assert json.loads(record.record or "")["thinking"] == "I should type."


async def test_clearing_forgets_everything_and_says_how_much(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe()
    for number in range(3):
        await session.send(str(number))
        await heard(reader, "status:idle")
    assert await session.clear_history() == 6
    assert bench.agents[0].history == []
    assert await bench.store.transcript.load(session.id) == []
    (message,) = await heard(reader, "status:cleared")
    assert message["metadata"]["cleared_messages"] == 6


async def test_max_messages_refuses_and_the_session_stays(bench: Bench) -> None:
    session = await bench.registry.create(None, {"max_messages": 2})
    reader = session.subscribe()
    for number in range(2):
        await session.send(str(number))
        await heard(reader, "status:idle")
    await session.clear_history()
    with pytest.raises(MessageLimitReached):
        await session.send("one more")
    assert session.status == "active"
    assert (await bench.store.messages.page(session.id, MessageQuery())).total == 0


@pytest.mark.parametrize("content", [None, 5, "", "  \n", ["x"], "\ud800", "x" * 200_001])
async def test_odd_content_is_refused(bench: Bench, content: object) -> None:
    session = await bench.registry.create()
    with pytest.raises(InvalidRequest):
        await session.send(content)
    assert session.state == "idle"


@pytest.mark.parametrize(
    "metadata",
    [5, [], {1: 2}, {"x": float("nan")}, {"x": "y" * 70_000}, {"options": 3}, {"options": {"colour": "red"}},
     {"options": {"max_steps": True}}, {"options": {"max_steps": -1}}, {"options": {"effort": 5}}],
)  # fmt: skip
async def test_odd_metadata_is_refused(bench: Bench, metadata: object) -> None:
    session = await bench.registry.create()
    with pytest.raises(InvalidRequest):
        await session.send("x", metadata)


async def test_options_reach_the_agent_for_one_turn(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("x", {"options": {"effort": "high", "max_steps": 3}})
    await heard(reader, "status:idle")
    options = bench.agents[0].options
    assert options is not None
    assert (options.effort, options.max_steps) == ("high", 3)
    await session.send("x")
    await heard(reader, "status:idle")
    assert bench.agents[0].options is not None
    assert bench.agents[0].options.effort is None


async def test_an_agent_that_breaks_is_an_error_and_the_session_goes_on(bench: Bench) -> None:
    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield agent.say("assistant", [{"type": "tool_use", "id": "t", "name": "bash", "input": {}}])
        raise ZeroDivisionError("secret words")

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("x")
    messages = await heard(reader, "status:idle")
    assert kinds(messages)[-2] == "error"
    assert "secret" not in json.dumps(messages)
    bench.script = work(0)
    await session.send("y")
    await heard(reader, "status:idle")
    history = bench.agents[-1].history
    assert [message["role"] for message in history] == ["user", "assistant", "user", "user", "assistant"]
    assert history[2]["content"][0]["tool_use_id"] == "t"  # the open call was closed before the next message
    assert await bench.store.transcript.load(session.id) == history


async def test_what_was_said_and_spent_stands_with_the_first_call_of_a_reply(bench: Bench) -> None:
    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield ModelReplied(1, "tool_use", COST, 1.0, "I look, then click.")
        for number in (1, 2):
            yield ToolStarted(f"t{number}", "screenshot", "computer", {}, number)
            yield ToolFinished(f"t{number}", "screenshot", "computer", {}, number, False, "")
        yield ModelReplied(2, "end_turn", COST, 1.0, "Done.")
        yield TurnFinished("Done.", ["screenshot"] * 2, 0.1, COST + COST)

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("Look")
    calls = [one for one in await heard(reader, "status:idle") if one["type"] == "tool_execution"]
    assert [one["metadata"].get("cost_usd") for one in calls] == [0.25, 0.25, None, None]
    steps = await bench.store.steps.of(session.id)
    assert [(one.said, one.cost_usd) for one in steps] == [("I look, then click.", 0.25), ("", None)]
    answer = (await bench.store.messages.page(session.id, MessageQuery(role="assistant"))).rows[0]
    assert answer.metadata["said"] == [{"step": 1, "content": "I look, then click."}]


async def test_a_summary_takes_the_place_of_what_it_stands_for_in_one_commit(bench: Bench) -> None:
    """At no moment is the conversation stored without either; a drop that nothing follows is kept too."""
    lengths: list[int] = []

    async def look() -> None:
        lengths.append(len(await bench.store.transcript.load(session.id)))

    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield agent.say("assistant", "one")
        await look()
        dropped = [agent.history.pop() for _ in range(2)]
        yield HistoryDropped(len(dropped))
        await look()
        yield agent.say("user", "A summary.")
        await look()
        agent.history.pop()
        yield HistoryDropped(1)
        yield TurnFailed("No.", "", 0.1, Usage())

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("Look")
    await heard(reader, "status:idle")
    assert lengths == [2, 2, 1]
    assert await bench.store.transcript.load(session.id) == []


async def test_an_agent_that_just_stops_is_an_error(bench: Bench) -> None:
    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield StatusChanged("thinking")

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("x")
    assert kinds(await heard(reader, "status:idle"))[-2] == "error"


async def test_ending_while_it_works(bench: Bench) -> None:
    bench.script = work(1, hold=asyncio.Event())
    session = await bench.registry.create()
    ended: list[str] = []

    class Viewer:
        name = "v"

        def may_act_changed(self) -> None: ...
        def report(self) -> None: ...

        def session_ended(self, reason: str) -> None:
            ended.append(reason)

    session.add_viewer(Viewer())
    reader = session.subscribe()
    await session.send("Look")
    await heard(reader, "tool_execution:started")
    outcomes = await asyncio.gather(*(bench.registry.end(session.id) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [dict, SessionEnded, SessionEnded]
    messages = [json.loads(text) async for _, text in reader]
    assert kinds(messages) == ["agent_response", "status:ended"]
    assert ended == ["The session was ended"]
    assert bench.provider.open == {}
    assert bench.agents[0].closed
    row = await bench.store.sessions.get(session.id)
    assert row is not None
    assert (row.status, row.end_reason, row.turn_message_id) == ("inactive", "request", None)
    assert row.ended_at is not None
    for refused in (session.send("x"), session.clear_history(), session.stop(), session.take_control("a")):
        with pytest.raises(SessionEnded):
            await refused
    with pytest.raises(SessionEnded):
        bench.registry.get(session.id)
    with pytest.raises(SessionEnded):
        await bench.registry.end(session.id)
    with pytest.raises(SessionNotFound):
        await bench.registry.end("nobody")
    assert (await bench.registry.describe(session.id))["end_reason"] == "request"


async def test_a_turn_that_does_not_stop_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cambio_lab.sessions.turn.STOP_SECONDS", 0.1)

    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield StatusChanged("acting")
        await asyncio.sleep(60)

    bench.script = script
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.send("x")
    await heard(reader, "status:acting")
    await within(2, bench.registry.end(session.id))
    assert kinds([json.loads(text) async for _, text in reader]) == ["error", "status:ended"]


@pytest.mark.parametrize("working", [False, True])
async def test_a_desktop_that_dies_ends_the_session_as_error(bench: Bench, working: bool) -> None:
    bench.script = work(5, pause=0.02)
    session = await bench.registry.create()
    reader = session.subscribe()
    if working:
        await session.send("x")
        await heard(reader, "tool_execution:completed")
    bench.provider.open[session.desktop.desktop_id].die("The container was killed.")
    messages = [json.loads(text) async for _, text in reader]
    assert kinds(messages)[-1] == "status:ended"
    assert messages[-1]["status"] == "error"
    assert kinds(messages).count("error") == working
    row = await bench.store.sessions.get(session.id)
    assert row is not None
    assert row.status == "error"


async def test_changing_name_approval_and_display(bench: Bench) -> None:
    session: Session = await bench.registry.create("old")
    await session.change(name="new", approval=["type"], display="640x480")
    described = session.describe()
    assert (described["name"], described["display"]) == ("new", "640x480")
    assert described["config"]["approval"] == ["type"]
    row = await bench.store.sessions.get(session.id)
    assert row is not None
    assert (row.name, row.config["display"]) == ("new", "640x480")
    with pytest.raises(InvalidRequest):
        await session.change(display="9x9")
    with pytest.raises(InvalidRequest):
        await session.change(approval="sometimes")


async def test_a_late_stop_does_not_end_the_next_turn(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe()
    first = await session.send("one")
    await heard(reader, "status:idle")
    bench.script = work(2, hold=(hold := asyncio.Event()))
    second = await session.send("two")
    await heard(reader, "tool_execution:completed")
    with pytest.raises(SessionConflict, match="ended already"):
        await session.stop(first)
    assert session.life.phase.value == "working"
    await session.stop(second)
    answer = (await heard(reader, "agent_response"))[-1]
    assert answer["metadata"]["stopped"] is True
    hold.set()
    await heard(reader, "status:idle")
    with pytest.raises(SessionConflict):
        await session.stop(second)
    await session.stop()  # without a name and without a turn: nothing happens


async def test_a_policy_change_is_a_stored_event(bench: Bench) -> None:
    session = await bench.registry.create()
    reader = session.subscribe()
    await session.change(approval="always")
    await session.change(name="other")
    await session.change(approval=["left_click"])
    assert await session.journal.drain(5)
    again = session.subscribe(after=0)
    for stream in (reader, again):
        found = [json.loads((await within(5, anext(stream)))[1]) for _ in range(2)]
        assert kinds(found) == ["status:approval_policy"] * 2
        assert [message["metadata"]["approval"] for message in found] == ["always", ["left_click"]]
    records = await bench.store.events.records(session.id, kinds=["PolicyChanged"])
    assert len(records) == 2


async def test_usage_is_told_during_a_turn_and_is_one_number_everywhere(bench: Bench) -> None:
    async def two_replies(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        yield ModelReplied(1, "tool_use", COST, 1.0, "first")
        yield ModelReplied(2, "end_turn", COST, 1.0, "second")
        yield agent.say("assistant", "Done.")
        yield TurnFinished("Done.", [], 0.1, COST + COST)

    bench.script = two_replies
    session = await bench.registry.create()
    reader = session.subscribe()
    for turn in (1, 2):
        await session.send("go")
        messages = await heard(reader, "status:idle")
        told = [one["metadata"] for one in messages if kinds([one]) == ["status:usage"]]
        assert [one["usage"]["cost_usd"] for one in told] == [turn * 0.5 - 0.25, turn * 0.5]
        assert [one["turn_usage"]["cost_usd"] for one in told] == [0.25, 0.5]
        response = next(one["metadata"] for one in messages if one["type"] == "agent_response")
        described = session.describe()["usage"]
        assert response["session_usage"] == described == told[-1]["usage"]
        row = await bench.store.sessions.get(session.id)
        assert row is not None and row.usage["cost_usd"] == described["cost_usd"]


async def test_after_an_internal_error_the_agent_gets_its_own_desktop_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the clients, on which its actions would be recorded as theirs."""
    clients = MemoryDesktop(bench.provider, "memory-1")
    monkeypatch.setattr(ScriptedAgent, "client_desktop", lambda agent, desktop, mask: clients, raising=False)
    session = await bench.registry.create()
    assert session.desktop is clients

    async def breaking(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        if content:
            raise RuntimeError("a mistake of ours")
        yield StatusChanged("thinking")

    bench.script = breaking
    own = bench.agents[-1].request.desktop
    await session.send("one")
    await until(lambda: session.state == "idle")
    await session.send("two")
    await until(lambda: session.state == "idle")
    assert len(bench.agents) == 2
    assert bench.agents[-1].request.desktop is own
