"""A program beside the agent on a real server: it answers questions and hands the desktop back."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import ImageChops, ImageStat

from benchmarks.vnc import Viewer
from cambio_lab.client.message import Message, Question
from cambio_lab.client.screenshot import TOKENS, Screenshot, example
from cambio_lab.client.session import Session
from cambio_lab.client.workbench import Workbench
from cambio_lab.desktop.base import Size
from cambio_lab.desktop.provider import DesktopOptions
from cambio_lab.desktop.sandbox.provider import LocalProvider
from cambio_lab.errors import InvalidRequest, SessionConflict
from cambio_lab.events import ToolFinished
from cambio_lab.reports import Run
from cambio_lab.reports.dataset import step_rows
from cambio_lab.settings import Settings

from ..live_server import LiveServer
from ..messages_api import MessagesApi, Recorded, Script, click, screenshot
from ..messages_api import reply as answer
from ..messages_api.service import betas_of

MODEL = "claude-sonnet-5-5"


@pytest.fixture
async def real(live: LiveServer) -> AsyncIterator[Workbench]:
    async with Workbench(live.url, live.token) as lab:
        yield lab


def asks(**arguments: Any) -> str:
    """A message for which the demo model asks."""
    return f"ask_user {json.dumps(arguments)}"


async def test_a_function_answers_and_the_answer_is_part_of_the_record(real: Workbench) -> None:
    seen: list[Question] = []
    async with await real.create_session("Asked", model="demo", ask_user=True) as session:

        @session.on_question
        async def colour(question: Question) -> str:
            seen.append(question)
            return question.choices[1]

        turn = await session.send(asks(question="Which colour?", choices=["red", "blue"]))
        assert [(one.question, one.choices) for one in seen] == [("Which colour?", ["red", "blue"])]
        assert next(step for step in turn.steps if step.tool == "ask_user").text == "The user answered: blue"
        history = await session.history()
        assert [row["content"] for row in history][1:3] == ["Which colour?", "blue"]
        run = await session.load_run()
    assert (await run.replay()).identical, "a replay asks no person"
    for text in (run.to_markdown(), run.to_html()):
        assert "Which colour?" in text and "blue" in text


async def test_who_answers_first_counts(real: Workbench) -> None:
    async with (
        await real.create_session("Two", model="demo", ask_user=True) as session,
        Workbench(real.address.url, real.address.token) as other,
    ):
        turn = asyncio.create_task(session.send(asks(question="Which?", choices=["a", "b"], free_text=False)))
        question = await (await other.session(session.id)).wait_for_question()
        assert question.tool == "ask_user" and not question.free_text
        with pytest.raises(InvalidRequest):
            await question.answer("c")
        await question.answer("b")
        with pytest.raises(SessionConflict):
            await session.answer("a")
        assert "The user answered: b" in [step.text for step in (await turn).steps]


async def test_rest_hands_the_desktop_back(real: Workbench, live: LiveServer) -> None:
    async with await real.create_session("Handed", model="demo", ask_user=True) as session:
        turn = asyncio.create_task(session.send('hand_over {"reason": "Please log in."}'))
        question = await session.wait_for_question()
        assert (question.tool, question.question) == ("hand_over", "Please log in.")
        assert (await session.refresh())["state"] == "waiting"
        async with live.client() as client:
            (await client.post(f"{session.path}/answer", json={"text": "done"})).raise_for_status()
        handed = next(step for step in (await turn).steps if step.tool == "hand_over")
        assert handed.text == "The user handed the desktop back and says: done" and handed.image_path


async def viewer_of(live: LiveServer, session_id: str, name: str) -> tuple[aiohttp.ClientSession, Any]:
    client = aiohttp.ClientSession()
    url = f"{live.ws_url}/vnc/{session_id}?viewer={name}"
    socket = await client.ws_connect(url, headers=live.headers, max_msg_size=0)
    viewer = Viewer(socket.receive_bytes, socket.send_bytes)
    await viewer.greet(None)
    await viewer.update(16, 16)
    return client, socket


def typed(text: str) -> bytes:
    return b"".join(bytes([4, down, 0, 0, 0, 0, 0, ord(letter)]) for letter in text for down in (1, 0))


LEFT, RIGHT = 1, 4


def clicked(x: int, y: int, button: int = LEFT) -> bytes:
    return b"".join(bytes([5, down]) + x.to_bytes(2, "big") + y.to_bytes(2, "big") for down in (button, 0))


@pytest.mark.parametrize(("mode", "expected"), [("actions", {"characters": 3}), ("full", {"text": "abc"})])
async def test_what_a_person_does_is_recorded_and_told_to_the_agent(
    mode: Any, expected: dict[str, Any], real: Workbench, live: LiveServer
) -> None:
    async with await real.create_session("Person", model="demo", ask_user=True, record_human=mode) as session:
        turn = asyncio.create_task(session.send('hand_over {"reason": "Log in, please."}'))
        question = await session.wait_for_question()
        client, socket = await viewer_of(live, session.id, "ann")
        await socket.send_bytes(clicked(200, 300) + typed("abc"))
        await socket.send_bytes(clicked(400, 300))
        await asyncio.sleep(0.2)  # the server reads the socket, which answers nothing
        await question.answer("done")
        assert "a person: type" in "".join((await turn).transcript())
        await socket.close()
        await client.close()
        run = await session.load_run()
    rows = [(row["action"], row["arguments"]) for row in run.human_steps]
    assert rows == [
        ("left_click", {"coordinate": [200, 300]}),
        ("type", expected),
        ("left_click", {"coordinate": [400, 300]}),
    ]
    assert run.human_steps[-1]["screenshot"] and [row["step"] for row in run.rows] == list(range(1, len(run.rows) + 1))
    said = [block["text"] for message in run.messages for block in message["content"] if block["type"] == "text"]
    assert "Note: While you were paused the user clicked 2 times and typed on the desktop." in said
    replayed = await run.replay()
    assert replayed.identical
    assert [event.actor for event in replayed.events if isinstance(event, ToolFinished)].count("human") == 3
    again = [call for call in run.contents.observations if call.get("by") == "human"]
    typing = ["type_text"] if mode == "full" else []
    assert [call["method"] for call in again] == ["click", *typing, "click", "screenshot"]
    assert "A person" in run.to_markdown() and "a person: left_click" in run.to_html()


async def test_nothing_is_recorded_of_a_person_where_the_session_says_so(real: Workbench, live: LiveServer) -> None:
    async with await real.create_session("Private", model="demo", record_human="off") as session:
        client, socket = await viewer_of(live, session.id, "ann")
        await socket.send_bytes(clicked(200, 300) + typed("abc"))
        async with asyncio.timeout(20):
            while not any(  # noqa: ASYNC110 - it happens in another process
                event.event == "human_input" for event in await session_events(live, session.id)
            ):
                await asyncio.sleep(0.1)
        await socket.close()
        await client.close()
        assert not list(await session.steps())


async def session_events(live: LiveServer, session_id: str) -> list[Message]:
    async with live.client() as client:
        answer = (await client.get(f"/sessions/{session_id}/events")).raise_for_status().json()
    return [Message.parse(event) for event in answer["events"]]


async def test_a_message_joins_the_running_turn_or_ends_it_first(real: Workbench) -> None:
    async with await real.create_session("Steered", model="demo", ask_user=True) as session:
        first = asyncio.create_task(session.send(asks(question="Which?")))
        await session.wait_for_question()
        joined = await session.send("And be quick.", when="next")
        assert joined is session.turns[0] and not joined.done and len(session.turns) == 1
        second = await session.send("Something else.", when="now")
        stopped = await first
        assert stopped.stopped and "Something else." in second.text + second.message and second.done
        assert [row["content"] for row in await session.history(role="user")][-1] == "Something else."
        assert (await (await session.load_run()).replay()).identical


CTRL, ALT, RETURN = 0xFFE3, 0xFFE9, 0xFF0D


def pressed(*symbols: int) -> bytes:
    down = b"".join(bytes([4, 1, 0, 0]) + symbol.to_bytes(4, "big") for symbol in symbols)
    return down + b"".join(bytes([4, 0, 0, 0]) + symbol.to_bytes(4, "big") for symbol in reversed(symbols))


async def recorded_steps(session: Session, count: int) -> None:
    async with asyncio.timeout(30):
        while len(await session.steps()) < count:  # noqa: ASYNC110 - it happens in another process
            await asyncio.sleep(0.1)


async def demonstrated(lab: Workbench, server: LiveServer) -> Run:
    shown = await lab.demonstrate("File an expense")
    client, socket = await viewer_of(server, shown.id, "ann")
    for number, sent in enumerate([clicked(200, 300, RIGHT), clicked(400, 200), typed("abc")], 1):  # a menu, and away
        await socket.send_bytes(sent)
        await recorded_steps(shown, number)
    await socket.close()
    await client.close()
    await shown.end()
    return await shown.load_run()


def counted(api: MessagesApi, request: Recorded, content: list[dict[str, Any]]) -> int:
    """Tokens of ``request`` with another first message, as the service counts them."""
    return api.service.count(
        {**request.body, "messages": [{"role": "user", "content": content}]}, betas_of(request.headers)
    )


async def test_a_demonstration_reaches_the_model_as_text_and_key_frames_within_its_tokens(
    tmp_path: Path, messages_api: MessagesApi
) -> None:
    """What the strict stand-in receives over the real SDK, in this turn and the next."""
    messages_api.policy = Script([answer("I look.", screenshot()), answer(click(640, 400))], end="Filed.")
    server = LiveServer(data_dir=tmp_path, model=MODEL, env=messages_api.environment)
    await server.start()
    try:
        async with Workbench(server.url, server.token) as lab:
            run = await demonstrated(lab, server)
            async with await lab.create_session("Like it", model=MODEL, tools=["computer"]) as session:
                await session.send("File the expense of today.", like=run)
                await session.send("And that of tomorrow.")
    finally:
        await server.stop()
    rows = [(row["actor"], row["action"], row["instruction"]) for row in step_rows(run)]
    assert rows == [("human", action, "File an expense") for action in ("right_click", "left_click", "type")]
    assert messages_api.refusals == [] and len(messages_api.bodies) == 6
    made, first = example(run), messages_api.bodies[0]["messages"]
    assert [(one["role"], [block["type"] for block in one["content"]]) for one in first] == [
        ("user", ["image"] * len(made.images) + ["text"])
    ]
    *images, asked = first[0]["content"]
    assert asked["text"] == f"File the expense of today.\n\n{made.text}"
    assert made.text.splitlines()[:4] == [
        "An example of how such a task was done before (File an expense):",
        "1. right_click (200, 300)",
        "2. left_click (400, 200)",
        "3. type 'abc'",
    ]
    assert "those of 1280x800 pixels" in made.text
    for block, frame in zip(images, made.images, strict=True):
        sent = Screenshot(base64.b64decode(block["source"]["data"]), block["source"]["media_type"])
        change = ImageChops.difference(sent.image(), frame.image())  # the server encodes images again
        assert max(ImageStat.Stat(change).mean) < 3, "the same screen"
    assert len(made.images) >= 2 and made.images[-1].size == (512, 320)
    for body in messages_api.bodies[1:]:
        again = [{**block, "cache_control": None} for block in body["messages"][0]["content"]]
        assert again == [{**block, "cache_control": None} for block in first[0]["content"]], "sent once, and kept"
    request, question = messages_api.requests[0], {"type": "text", "text": "File the expense of today."}
    tokens = counted(messages_api, request, first[0]["content"]) - counted(messages_api, request, [question])
    print(f"{len(made.images)} images and {len(made.text)} characters: {tokens} tokens, estimated {made.tokens}")
    assert 0.7 * made.tokens <= tokens <= made.tokens <= TOKENS
    for budget in (100, 300, 500):
        assert example(run, budget).tokens <= budget


@pytest.mark.slow
async def test_a_demonstration_is_a_run_that_a_desktop_repeats_and_an_agent_is_shown(
    real: Workbench, live: LiveServer, tmp_path: Path
) -> None:
    shown = await real.demonstrate("Write a note")
    client, socket = await viewer_of(live, shown.id, "ann")
    before = (await shown.screenshot()).data
    await socket.send_bytes(pressed(CTRL, ALT, ord("t")))
    async with asyncio.timeout(30):
        while (await shown.screenshot()).data == before:  # noqa: ASYNC110 - a terminal opens
            await asyncio.sleep(0.1)
    await recorded_steps(shown, 1)
    for number in range(5):
        await socket.send_bytes(typed(f"echo {number}") + pressed(RETURN))
        await recorded_steps(shown, 3 + 2 * number)
    await socket.send_bytes(clicked(1200, 780))
    await recorded_steps(shown, 12)
    await socket.close()
    await client.close()
    await shown.end()
    run = await shown.load_run()
    assert len(run.human_steps) == 12 and run.complete
    assert run.human_steps[0]["arguments"] == {"text": "ctrl+alt+t"}
    provider = LocalProvider(Settings(pool_size=0), server_id=uuid.uuid4().hex)
    try:
        for number in range(10):
            desktop = await provider.acquire(f"again-{number}", DesktopOptions(size=Size(1280, 800)))
            again = await run.replay_on(desktop, tolerance=0.02)
            await desktop.close()
            assert again.matches and again.performed >= 12, (number, again)
    finally:
        await provider.stop()
    made = example(run, 2_000)
    print(f"as an example: {len(made.text)} characters, {len(made.images)} images, about {made.tokens} tokens")
    assert made.tokens <= 2_000 and made.images and "type 'echo 3'" in made.text
    async with await real.create_session("Like it", model="demo") as session:
        await session.send("Write a note.", like=run)
        first = (await session.load_run()).messages[0]["content"]
    assert [block["type"] for block in first].count("image") >= 1
    assert "An example of how such a task was done before (Write a note)" in json.dumps(first)
