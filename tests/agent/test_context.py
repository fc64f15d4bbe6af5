"""Whole turns against the strict stand-in with what a desktop can return, and what it refuses in an older history."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
from typing import Any

import pytest
from PIL import Image

from cambio_lab.desktop.base import Size
from cambio_lab.desktop.machine import CommandResult
from cambio_lab.events import HistoryAppended, HistoryDropped, StatusChanged, TurnFailed, TurnFinished
from tests.messages_api import MessagesApi, Script, Steps, member, reply, screenshot, think, tool

from .conftest import MakeAgent, of, play
from .fake_desktop import FakeDesktop

BASH = tool("bash", command="ls")


@pytest.mark.parametrize(
    "output",
    [" \n\t\n", "\x00\x1b[31m\x07", "\ud800", "x" * 3_000_000, "\u2028\u200b", "\r\n"],
    ids=["blank", "control", "surrogate", "long", "invisible", "line ends"],
)
async def test_any_output_of_a_command_is_taken(
    output: str, make: MakeAgent, api: MessagesApi, desktop: FakeDesktop
) -> None:
    desktop.command = CommandResult(output, output, 1)
    api.policy = Script([reply(BASH), reply(BASH, screenshot())], end="Done.")
    agent = make(api, shell_output=1_000_000)
    for _ in range(2):
        assert isinstance((await play(agent))[-1], TurnFinished)


async def test_an_image_of_eleven_megabytes_is_taken(make: MakeAgent, api: MessagesApi, desktop: FakeDesktop) -> None:
    size = Size(2000, 1400)
    out = io.BytesIO()
    Image.frombytes("RGB", size, os.urandom(2000 * 1400 * 3)).save(out, "PNG")
    assert len(base64.b64encode(out.getvalue())) > 11_000_000
    await desktop.resize(size)
    desktop._screenshots = [out.getvalue()] * 3
    zoom = member("zoom", region=[0, 0, 2000, 1400])
    api.policy = Script([reply(screenshot()), reply(zoom), reply(member("left_click", coordinate=[1, 1]))], end="Done.")
    agent = make(api)
    for _ in range(2):
        assert isinstance((await play(agent))[-1], TurnFinished)
    assert max(request.size for request in api.requests) < 32_000_000


def break_image(history: list[dict[str, Any]], message: int) -> list[dict[str, Any]]:
    """``history`` with an image that is none in this message."""
    broken = copy.deepcopy(history)
    for part in (part for block in broken[message]["content"] for part in block["content"]):
        if part["type"] == "image":
            part["source"]["data"] = base64.b64encode(b"not an image").decode()
            return broken
    raise AssertionError(f"message {message} has no image")


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "claude-opus-4-8"])
async def test_a_bad_image_deep_in_a_history_is_repaired_once(make: MakeAgent, model: str) -> None:
    with MessagesApi(policy=Steps(count=8, batch=1, thoughts=model == "claude-sonnet-5-5")) as api:
        first = make(api, model=model)
        await play(first)
        history = break_image(first.history, 4)
        api.policy = Script([reply(screenshot())], end="Done.")
        agent = make(api, model=model, history=history)
        found = await play(agent)
        assert isinstance(found[-1], TurnFinished), found[-1]
        assert len(api.refusals) == 1 and "messages.4" in api.refusals[0]
        (told,) = [event for event in of(found, StatusChanged) if event.metadata.get("event") == "request_refused"]
        assert told.metadata["status"] == 400
        stored = list(history)
        for event in found:
            if isinstance(event, HistoryDropped):
                del stored[len(stored) - event.count :]
            elif isinstance(event, HistoryAppended):
                stored.append(event.message)
        assert stored == agent.history, "what is stored is what is sent"
        images = json.dumps(agent.history).count('"type": "image"')
        assert images == json.dumps(history).count('"type": "image"'), "one left out, one new: the others stay"
        again = make(api, model=model, history=stored)
        assert isinstance((await play(again))[-1], TurnFinished)
        assert len(api.refusals) == 1, "it never comes back"


async def test_many_bad_images_cost_a_few_refusals(make: MakeAgent) -> None:
    with MessagesApi(policy=Steps(count=8, batch=1, thoughts=True)) as api:
        first = make(api)
        await play(first)
        history = first.history
        for message in (2, 4, 6, 8, 10):
            history = break_image(history, message)
        agent = make(api, history=history)
        api.policy = Script([reply(think("hm"), "Done.")])
        assert isinstance((await play(agent))[-1], TurnFinished)
        assert len(api.refusals) <= 3


async def test_a_fault_of_the_message_itself_leaves_the_earlier_images(make: MakeAgent, scripted: Any) -> None:
    from .scripted import error, text, use
    from .scripted import reply as scripted_reply

    refusal = error(400, "invalid_request_error")
    service = scripted(
        scripted_reply(use("screenshot")), scripted_reply(text("Seen.")), refusal, scripted_reply(text("Ok."))
    )
    agent = make(service)
    await play(agent)
    before = agent.history
    assert isinstance((await play(agent, "Refused words."))[-1], TurnFailed)
    assert agent.history == before and isinstance((await play(agent))[-1], TurnFinished)
