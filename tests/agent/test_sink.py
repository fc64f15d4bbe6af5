"""The order of a turn: an event is stored before the loop goes on, and a sink that fails ends the turn."""

from __future__ import annotations

import pytest

from cambio_lab.errors import StoreError
from cambio_lab.events import Event, HistoryAppended, ToolFinished, ToolStarted
from tests.messages_api import MessagesApi, Script, reply, screenshot

from .conftest import MakeAgent, play
from .fake_desktop import FakeDesktop


@pytest.mark.parametrize("kind", [HistoryAppended, ToolStarted, ToolFinished])
async def test_a_sink_that_fails_ends_the_turn_with_its_error(
    kind: type[Event], make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    api.policy = Script([reply(screenshot()), reply(screenshot())], end="Done.")
    agent, seen = make(api), list[Event]()

    async def emit(event: Event) -> None:
        seen.append(event)
        if isinstance(event, kind):
            raise StoreError("The disk is full.")

    with pytest.raises(StoreError, match="disk is full"):
        await agent.run("Go.", emit)
    assert isinstance(seen[-1], kind), "nothing is said after the sink has failed"
    shots = desktop.done.count(("screenshot",))
    assert shots == (1 if kind is ToolFinished else 0), "nothing runs that is not stored"
    assert (await play(agent))[-1].text == "Done.", "the conversation can go on"  # type: ignore[attr-defined]
