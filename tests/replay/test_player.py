"""A run recorded live is replayed by the real loop: the same conversation to the byte, without anything outside."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.desktop.base import Point
from cambio_lab.errors import RecordingMissing, ReplayDiverged
from cambio_lab.events import TurnFinished
from cambio_lab.recording import Contents
from cambio_lab.recording import run_file as bundle
from cambio_lab.replay.playback import Playback
from cambio_lab.reports import Run
from tests.messages_api import (
    Break,
    NoStop,
    Script,
    SseError,
    Steps,
    click,
    member,
    rate_limited,
    reply,
    screenshot,
    think,
    tool,
)
from tests.recording.parts import Workshop
from tests.sessions.parts import until


async def test_fifty_steps_come_out_the_same(workshop: Workshop) -> None:
    run = await workshop.run("make fifty steps", policy=Steps(50, batch=5, thoughts=True))
    assert len(run.rows) == 50 and run.complete and workshop.api.refusals == []
    workshop.api.stop_answering()
    replayed = await run.replay()
    assert replayed.identical
    assert json.dumps(replayed.messages) == json.dumps(run.messages)
    assert replayed.seconds < run.seconds


async def test_every_tool_and_every_kind_of_result(workshop: Workshop) -> None:
    policy = Script(
        [
            reply(think("look"), screenshot(), member("cursor_position")),
            reply(click(10, 10), member("zoom", region=[0, 0, 200, 100])),
            reply(member("wait", duration=1), member("key", text="ctrl+alt+t"), screenshot()),
            reply(member("left_click", coordinate=[5000, 5000]), member("screenshot")),
            reply(tool("bash", command="echo out; echo err >&2; exit 3")),
            reply(tool("str_replace_based_edit_tool", command="create", path="note.txt", file_text="one\ntwo\n")),
            reply(tool("str_replace_based_edit_tool", command="view", path="note.txt")),
            reply(
                tool("str_replace_based_edit_tool", command="str_replace", path="note.txt", old_str="two", new_str="ü")
            ),
            reply(tool("str_replace_based_edit_tool", command="view", path="missing.txt")),
        ]
    )
    run = await workshop.run("do everything", "and again", policy=policy)
    assert {row["status"] for row in run.rows} == {"completed", "failed", "skipped"}
    replayed = await run.replay()
    assert replayed.identical
    assert replayed.seconds < run.seconds - 1  # the recorded wait is not waited for


@pytest.mark.timing
async def test_failures_of_the_service_are_not_waited_for_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.agent.service_errors.backoff", lambda attempt, retry_after: 0.6)
    workshop.api.fail(rate_limited("0.3"), Break(after=4), SseError(after=3), NoStop(after=5))
    run = await workshop.run("try", policy=Steps(2))
    assert len(run.contents.exchanges) == 6 and [e["kind"] for e in run.contents.events].count("Retrying") == 4
    replayed = await run.replay()
    assert replayed.identical and replayed.seconds < run.seconds / 3


@pytest.mark.timing
async def test_a_stop_is_a_part_of_the_run(workshop: Workshop) -> None:
    waiting = reply("I wait.", member("wait", duration=60))
    workshop.api.policy = lambda view: waiting if view.prompt == "wait for long" else reply("Now I am here.")
    session = await workshop.start()
    await session.send("wait for long")
    await until(lambda: session.steps)
    await session.stop()
    assert session.turn_task is not None
    await session.turn_task
    await workshop.send(session, "and now?")
    await workshop.registry.end(session.id)
    run = await Run.from_store(workshop.store, session.id)
    assert "Interrupted" in json.dumps(run.contents.messages)
    replayed = await run.replay()
    assert replayed.identical and replayed.seconds < 20


async def test_messages_during_a_turn_are_a_part_of_the_run(workshop: Workshop) -> None:
    replies = iter([reply(member("wait", duration=1)), reply(screenshot()), reply("First."), reply("Second.")])
    workshop.api.policy = lambda view: next(replies)
    session = await workshop.start()
    await session.send("Look.")
    await until(lambda: session.steps == 1)
    await session.send("Be quick.", when="next")
    workshop.api.delay = 0.5
    await until(lambda: len(workshop.api.requests) == 3)  # whose reply is "First."
    await session.send("And kind.", when="next")
    assert session.turn_task is not None
    await session.turn_task
    await workshop.registry.end(session.id)
    run = await Run.from_store(workshop.store, session.id)
    events = [event["kind"] for event in run.contents.events]
    assert (events.count("UserMessage"), events.count("MessageDelivered"), events.count("TurnFinished")) == (1, 2, 1)
    assert [row["turn"] for row in run.rows] == [1, 1]
    workshop.api.stop_answering()
    assert (await run.replay()).identical


async def test_stops_at_any_moment_come_out_the_same(workshop: Workshop) -> None:
    """Before the first byte of a reply, in the middle of its text, inside an action and between two."""
    slowly = reply("I look at it, slowly.", member("wait", duration=1), screenshot())
    workshop.api.policy = lambda view: reply("Done.") if view.prompt == "to its end" else slowly
    session = await workshop.start()
    await session.send("before anything is asked")
    await session.stop()
    assert session.turn_task is not None
    await session.turn_task
    await workshop.send(session, "to its end")
    asked, workshop.api.delay = len(workshop.api.bodies), 5.0
    await session.send("before the first byte")
    await until(lambda: len(workshop.api.bodies) > asked)
    await session.stop()
    await session.turn_task
    workshop.api.delay, workshop.api.pace = 0.05, 0.01
    for number in range(14):
        await session.send(f"turn {number}")
        await asyncio.sleep(0.03 * number)
        await session.stop()
        assert session.turn_task is not None
        await session.turn_task
    await workshop.registry.end(session.id)
    run = await Run.from_store(workshop.store, session.id)
    assert {exchange["status"] for exchange in run.contents.exchanges} >= {None, 200}
    replayed = await run.replay()
    assert replayed.identical
    said = [event["text"] for event in run.contents.events if event["kind"] == "TurnFinished"]
    assert [event.text for event in replayed.events if isinstance(event, TurnFinished)] == said
    assert len({*said}) > 2, "no reply was stopped in the middle of its text"


async def test_a_stop_after_the_whole_reply_was_read_ahead_comes_out_the_same(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop had not taken the reply yet; its record is complete, the turn ended inside it."""

    def slowly(*request: Any) -> str | None:
        time.sleep(0.1)  # in a thread: a stop right after RequestSent would come before this reply is given
        return compare(*request)

    compare = Playback._compare
    monkeypatch.setattr(Playback, "_compare", slowly)
    workshop.api.policy = Script([reply("It takes a while."), reply("Done."), reply("Done again.")])
    session = await workshop.start()
    workshop.api.pace = 0.2
    await session.send("go")
    await until(lambda: workshop.api.bodies)
    await asyncio.sleep(0.3)
    await session.stop()
    assert session.turn_task is not None
    await session.turn_task
    workshop.api.pace = 0
    await workshop.send(session, "once more")
    await workshop.send(session, "and again")
    await workshop.registry.end(session.id)
    contents = (await Run.from_store(workshop.store, session.id)).contents
    stopped, after, _ = contents.exchanges
    assert stopped["error"] == "cancelled"
    whole = {**stopped, "error": None, "response": after["response"]}
    replayed = await Run(dataclasses.replace(contents, exchanges=[whole, *contents.exchanges[1:]])).replay()
    assert replayed.identical


async def test_what_a_client_saw_it_sees_again(workshop: Workshop) -> None:
    """Also when the screen has changed since the agent looked."""
    workshop.api.policy = Steps(1)
    session = await workshop.start(record="seen.cambio")
    await workshop.send(session, "go")
    await session.desktop.move(Point(600, 400))
    await session.desktop.run_command("xsetroot -solid '#804020'")
    await asyncio.sleep(0.2)
    seen = await session.desktop.screenshot()
    await workshop.send(session, "go on")
    await workshop.registry.end(session.id)
    again = await workshop.start(record="seen.cambio")
    await workshop.send(again, "go")
    assert (await again.desktop.screenshot()).sha256 == seen.sha256
    await workshop.send(again, "go on")
    looked = [call for call in Run.load("seen.cambio").contents.observations if call["method"] == "screenshot"]
    assert [call.get("by") for call in looked] == [None, "client", None]
    assert looked[0]["result"]["picture"]["sha256"] != seen.sha256


async def test_approvals_are_a_part_of_the_run(workshop: Workshop) -> None:
    workshop.api.policy = Script(
        [reply(member("type", text="a")), reply(member("type", text="b")), reply(screenshot())]
    )
    session = await workshop.start(approval="risky", approval_timeout=5)
    await session.send("type")
    for approve in (True, False):
        await until(lambda: session.gate.pending)
        await (session.approve() if approve else session.deny())
        await until(lambda: session.gate.pending is None)
    assert session.turn_task is not None
    await session.turn_task
    await workshop.registry.end(session.id)
    run = await Run.from_store(workshop.store, session.id)
    assert [e["verdict"] for e in run.contents.events if e["kind"] == "ApprovalDecided"] == ["approved", "denied"]
    assert (await run.replay()).identical


async def test_a_bound_session_records_once_and_replays_then(workshop: Workshop) -> None:
    with pytest.raises(RecordingMissing):
        await workshop.start(record="runs/one.cambio", record_mode="none")
    first = await workshop.run("go", policy=Steps(4), record="runs/one.cambio")
    assert first.manifest["config"]["record"] == "one.cambio", "the folder is not in the file"
    workshop.api.stop_answering()
    again = await workshop.run("go", record="runs/one.cambio")
    assert again.manifest["desktop"]["kind"] == "recording"
    assert again.messages == first.messages and again.usage == first.usage
    assert Run.load("runs/one.cambio") == first
    other = await workshop.run("do something else", record="runs/one.cambio")
    failed = [event for event in other.contents.events if event["kind"] == "TurnFailed"]
    assert "the user now asks something that the recording did not: 'do something else'" in failed[0]["details"]


async def test_another_system_text_asks_something_else(workshop: Workshop) -> None:
    await workshop.run("go", policy=Steps(2), record="one.cambio", system="be quick")
    assert (await workshop.run("go", record="one.cambio", system="be quick")).answers == ["Made 2 steps."]
    other = await workshop.run("go", record="one.cambio", system="be slow")
    assert other.answers == ["the session's system text is 'be slow' instead of 'be quick'"]


async def test_a_replay_tells_the_recorded_times(workshop: Workshop) -> None:
    first = await workshop.run("go", policy=Steps(4), record="one.cambio")
    again = await workshop.run("go", record="one.cambio")
    times = ["model_ms", "action_ms", "settle_ms", "encode_ms", "total_ms"]
    assert again.steps[times].equals(first.steps[times])


async def test_a_changed_recording_is_noticed(workshop: Workshop) -> None:
    run = await workshop.run("go", policy=Steps(4))
    contents = run.contents
    calls = [call for call in contents.observations if call["method"] != "release_all"]
    fewer = Contents(**{**contents.__dict__, "observations": calls[:-1]})
    with pytest.raises(ReplayDiverged, match="the recording ends after"):
        await Run(_without_cache(fewer)).replay()
    prompts = [{**e, "content": "stay"} if e["kind"] == "UserMessage" else e for e in contents.events]
    with pytest.raises(ReplayDiverged, match="'stay' instead of 'go'"):
        await Run(_without_cache(Contents(**{**contents.__dict__, "events": prompts}))).replay()


def _without_cache(contents: Contents) -> Contents:
    return contents


async def test_a_bundle_is_the_run_and_has_no_secrets(workshop: Workshop, tmp_path: Path) -> None:
    run = await workshop.run("go", policy=Steps(4, thoughts=True))
    path = run.save(tmp_path / "a.cambio")
    loaded = Run.load(path)
    assert loaded == run and loaded.save(tmp_path / "b.cambio").read_bytes() == path.read_bytes()
    out = io.BytesIO()
    bundle.pack(loaded.contents, out)
    assert out.getvalue() == path.read_bytes()
    assert (await loaded.replay()).identical
    assert workshop.api.key.encode() not in path.read_bytes()
    assert b"Bearer" not in path.read_bytes() and b"authorization" not in path.read_bytes()
    first = loaded.contents.request(0)
    assert json.loads(first) == workshop.api.bodies[0]
    sent = [event["body_sha256"] for event in loaded.contents.events if event["kind"] == "RequestSent"]
    assert sent == [hashlib.sha256(loaded.contents.request(i)).hexdigest() for i in range(len(sent))]


@pytest.mark.timing
async def test_replay_at_recorded_pace(workshop: Workshop) -> None:
    workshop.api.delay = 0.2
    run = await workshop.run("go", policy=Steps(4))
    slow, fast = await run.replay(pace=1.0), await run.replay()
    assert slow.identical and fast.identical and slow.seconds > 0.6 and fast.seconds < slow.seconds


async def test_forks_go_on_from_a_step(workshop: Workshop) -> None:
    run = await workshop.run("go", policy=Steps(8, batch=2), name="first")
    point = run.fork_point(5)
    assert point.history[-1]["content"][1]["is_error"] and len(point.history) == 7
    workshop.api.policy = Script([reply(screenshot())], end="I went on.")
    session = await workshop.start("second", fork={"run": run.id, "step": 5})
    await workshop.send(session, "go on differently")
    await workshop.registry.end(session.id)
    forked = await Run.from_store(workshop.store, session.id)
    assert workshop.api.refusals == []
    assert forked.answers == ["I went on."] and len(forked.messages) == 7 + 4
    assert forked.messages[:7] == point.history
    assert (await forked.replay()).identical
