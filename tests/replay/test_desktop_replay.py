"""Recorded actions performed on fresh containers: the same screenshots, and a deliberate change is found."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cambio_lab.desktop.base import Desktop
from cambio_lab.desktop.docker.provider import DockerProvider
from cambio_lab.desktop.provider import DesktopOptions, DesktopProvider
from cambio_lab.replay.desktop_replay import DesktopReplay, clock_mask
from cambio_lab.reports import Run
from cambio_lab.settings import Settings
from tests.messages_api import Reply, Script, click, member, reply, screenshot, tool
from tests.recording.parts import Workshop

pytestmark = pytest.mark.docker
MANAGED = "until xprop -root _NET_SUPPORTING_WM_CHECK | grep -q window; do sleep 0.1; done; sleep 1"
COMMANDS = ["ls", "cat note.txt", "echo one > one.txt", "ls", "wc -c *", "pwd", "seq 3", "cat one.txt"]


def tour() -> list[Reply]:
    """A file, a terminal, eight commands: one call to a reply, so that every action on screen brings a screenshot."""
    actions = [
        tool("bash", command=f"echo the original > note.txt; {MANAGED}"),
        member("key", text="ctrl+alt+t"),
        member("wait", duration=2),
        click(640, 300),
    ]
    for command in COMMANDS:
        actions += [member("type", text=command), member("key", text="Return")]
    return [reply(action) for action in [*actions, screenshot()]]


@pytest.fixture
async def containers(docker_host: str) -> AsyncIterator[DesktopProvider]:
    provider = DockerProvider(Settings(pool_size=0, settle_quiet=0.3), server_id=uuid.uuid4().hex)
    yield provider
    await provider.stop()


@asynccontextmanager
async def fresh(provider: DesktopProvider) -> AsyncIterator[Desktop]:
    desktop = await provider.acquire("replay", DesktopOptions())
    try:
        yield desktop
    finally:
        await desktop.close()


async def test_twenty_of_twenty_match_and_a_change_is_found(
    open_workshop: Callable[..., Any], containers: DesktopProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cambio_lab.replay.desktop_replay.PATIENCE", 12.0)  # a busy machine opens a terminal slowly
    workshop: Workshop = await open_workshop(containers)
    run = await workshop.run("type some commands", policy=Script(tour()))
    assert [row["screenshot"] is not None for row in run.rows] == [False, *[True] * 20]
    assert workshop.api.refusals == []

    async with fresh(containers) as desktop:
        same = await run.replay_on(desktop, masks=(clock_mask(desktop.size),))
    assert same.matches and len(same.looks) == 20, same

    changed = await _with_another_note(run, containers)
    assert changed.divergence is not None and changed.divergence.step == _reads_the_note(run)
    look = changed.divergence
    assert 0 < look.changed < 0.05 and look.box is not None
    assert look.recorded == run.screenshot(_reads_the_note(run)) != look.seen
    shown = changed._repr_mimebundle_()["text/html"]
    assert shown.count("<img") == 3 and f"step {look.step}" in shown
    (tmp_path / "difference.png").write_bytes(look.difference())


def _reads_the_note(run: Run) -> int:
    """The step that shows what ``cat note.txt`` printed."""
    return next(int(row["step"]) for row in run.rows if row["arguments"].get("text") == "cat note.txt") + 1


async def _with_another_note(run: Run, provider: DesktopProvider) -> DesktopReplay:
    """Replay on a desktop where the file says something else: the command that makes it cannot write it any more."""
    async with fresh(provider) as desktop:
        await desktop.run_command("echo another text > note.txt; chmod 400 note.txt")
        return await run.replay_on(desktop, masks=(clock_mask(desktop.size),))
