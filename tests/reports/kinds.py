"""Recorded sessions of every kind that an exporter meets."""

from __future__ import annotations

from cambio_lab.events import HumanInput
from cambio_lab.reports import Run
from tests.messages_api import ErrorStatus, Script, click, member, reply, screenshot, think, tool
from tests.recording.parts import Workshop
from tests.replay.test_browser_runs import run_form
from tests.sessions.parts import until

KINDS = ("desktop", "browser", "stopped", "failed")


async def desktop_run(workshop: Workshop) -> Run:
    """Thoughts, pointer, keyboard and shell; a denial, and a person who uses the desktop between two turns."""
    api = workshop.api
    api.policy = Script(
        [
            reply(think("hm"), "I look.", screenshot()),
            reply("I click.", click(640, 400), member("left_click_drag", start_coordinate=[9, 9], coordinate=[90, 90])),
            reply(member("scroll", coordinate=[300, 300], scroll_direction="down", scroll_amount=2)),
            reply(tool("bash", command="echo shell; exit 3")),
        ],
        end="Looked around.",
    )
    session = await workshop.start("by hand and agent")
    await workshop.send(session, "Look around")
    await session.record_human_input(HumanInput("anna", pointer_events=3, key_events=2))
    await session.change(approval="risky")
    api.policy = Script([reply("I type.", member("type", text="hello")), reply(member("key", text="Return"))])
    await session.send("Type")
    for approve in (True, False):
        await until(lambda: session.gate.pending)
        await (session.approve() if approve else session.deny())
        await until(lambda: session.gate.pending is None)
    assert session.turn_task is not None
    await session.turn_task
    return await _ended(workshop, session.id)


async def browser_run(workshop: Workshop) -> Run:
    session, _ = await run_form(workshop)
    return await _ended(workshop, session.id)


async def stopped_run(workshop: Workshop) -> Run:
    workshop.api.policy = Script([reply("I wait.", member("wait", duration=60))])
    session = await workshop.start("stopped")
    await session.send("wait for long")
    await until(lambda: session.steps)
    await session.stop()
    assert session.turn_task is not None
    await session.turn_task
    return await _ended(workshop, session.id)


async def failed_run(workshop: Workshop) -> Run:
    workshop.api.fail(ErrorStatus("invalid_request_error", message="no such luck"))
    return await workshop.run("fail", name="failed")


async def run_of(workshop: Workshop, kind: str) -> Run:
    made = {"desktop": desktop_run, "browser": browser_run, "stopped": stopped_run, "failed": failed_run}
    return await made[kind](workshop)


async def _ended(workshop: Workshop, session_id: str) -> Run:
    await workshop.registry.end(session_id)
    return await Run.from_store(workshop.store, session_id)
