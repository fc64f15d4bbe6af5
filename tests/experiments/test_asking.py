"""In an experiment a function of the task answers the agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cambio_lab.experiments import Experiment, Task
from tests.messages_api import MessagesApi, Reply, View, reply, tool


def asks(view: View) -> Reply:
    """Asks for a word, and says what it was told."""
    if not view.calls:
        return reply(tool("ask_user", question="Which word?"))
    last = view.messages[-1]["content"][0]["content"][0]["text"]
    return reply(last)


async def test_the_tasks_function_answers(experiment: Callable[..., Experiment], api: MessagesApi) -> None:
    api.policy = asks
    asked: list[str] = []

    def answer(live: Any, question: Any) -> str:
        asked.append(question.question)
        return f"word {live.seed}"

    task = Task("ask", "Ask me.", answer=answer, check=lambda live: f"word {live.seed}" in live.answer)
    made = experiment([task], repeats=1)
    tally = await made.run(progress=False)
    assert (tally.done, tally.success) == (1, 1) and asked == ["Which word?"]
    assert task.digest() != Task("ask", "Ask me.", check=task.check).digest()
