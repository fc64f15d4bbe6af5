"""``cambio-lab replay FILE`` has nothing but the file: what people decided and client tools answered comes from it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cambio_lab.cli import main
from cambio_lab.reports import Run
from cambio_lab.sessions.session import Session
from tests.agent.test_tools import Functions
from tests.messages_api import Script, click, member, reply, screenshot, tool
from tests.recording.parts import Workshop
from tests.sessions.parts import until

HERE = Path(__file__).resolve()
SHIPPED = sorted(
    [*(HERE.parents[2] / "notebooks" / "runs").rglob("*.cambio"), *(HERE.parent / "version_one").glob("*.cambio")]
)
"""The notebooks' recordings, and three that the first program to write version 1 made."""
SAME = "the conversation is the same to the byte"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_recordings_replay(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(path)]) == 0
    assert SAME in capsys.readouterr().out


async def decide(session: Session, *decisions: bool) -> None:
    for approve in decisions:
        await until(lambda: session.gate.pending)
        await (session.approve() if approve else session.deny())
        await until(lambda: session.gate.pending is None)


async def test_policy_changes_denials_and_client_tools_replay(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.api.policy = Script([reply(screenshot(), tool("look_up", key="x"))])
    session = await workshop.start(approval="never", approval_timeout=20)
    session.extra_tools = Functions("look_up", "unused")
    await workshop.send(session, "look it up")
    await session.change(approval="risky")
    workshop.api.policy = Script(
        [
            reply(member("type", text="denied"), click(10, 10)),
            reply(tool("look_up", key="wrong"), member("type", text="approved")),
        ]
    )
    await session.send("type something")
    await decide(session, False, True)
    assert session.turn_task is not None
    await session.turn_task
    await session.change(approval=["bash"])
    await workshop.registry.end(session.id)
    run = await Run.from_store(workshop.store, session.id)
    kinds = [event["kind"] for event in run.contents.events]
    decided = [event["verdict"] for event in run.contents.events if event["kind"] == "ApprovalDecided"]
    assert kinds.count("PolicyChanged") == 2 and decided == ["denied", "approved"]
    assert [row["text"] for row in run.rows if row["action"] == "look_up"] == ["x = 42", "wrong = 42"]
    path = run.save(tmp_path / "elsewhere" / "run.cambio")
    await workshop.close()
    assert await asyncio.to_thread(main, ["replay", str(path)]) == 0
    assert SAME in capsys.readouterr().out
