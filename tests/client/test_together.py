"""A program beside the agent on a real server: it answers questions and hands the desktop back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cambio_lab.client.questions import Question
from cambio_lab.client.workbench import Workbench
from cambio_lab.errors import InvalidRequest, SessionConflict

from ..live_server import LiveServer


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
