"""What an agent said is told once and in its place, wherever a run is told, however its turn ended."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cambio_lab import jupyter as record
from cambio_lab.client.message import Message
from cambio_lab.client.turn import Turn, TurnBuilder
from cambio_lab.reports import Run
from cambio_lab.reports.dataset import conversation, step_rows
from cambio_lab.sessions.session import Session
from tests.messages_api import MessagesApi, Script, member, reply, tool
from tests.recording.parts import Workshop
from tests.sessions.parts import until

WAITS = {
    "question": tool("ask_user", question="Which one?"),
    "hand-over": tool("hand_over", reason="Log in, please."),
    "approval": member("key", text="Return"),
}
ENDS = ("stop", "limit")
LONG = "A reply of many pieces, which a stop breaks off before it is whole."


async def events(workshop: Workshop, session: Session, *, stream: bool) -> list[Message]:
    """The session's messages as the socket or the history gives them."""
    rows = await workshop.store.events.after(session.id, 0, stream=stream, limit=1000)
    return [Message.parse(json.loads(body)) for _, body in rows]


async def turn_that_waits(session: Session, api: MessagesApi, wait: str, end: str) -> str:
    """A turn that ends while the agent waits for a person; returns what it had said before."""
    said = f"Before the {wait} and the {end}."
    api.policy = Script([reply(said, WAITS[wait])])
    limits = {"options": {"max_turn_seconds": 0.5}} if end == "limit" else None
    await session.send(f"{wait}, {end}", limits)
    if end == "stop":
        await until(lambda: session.gate.question or session.gate.pending)
        await session.stop()
    assert session.turn_task is not None
    await session.turn_task
    return said


async def turn_cut_in_a_reply(workshop: Workshop, session: Session) -> None:
    workshop.api.policy, workshop.api.pace = Script([reply(LONG)]), 0.2
    await session.send("in a reply, stop")
    while not any("A reply" in one.content for one in await events(workshop, session, stream=True)):
        pass
    await session.stop()
    assert session.turn_task is not None
    await session.turn_task


def told(messages: Sequence[Message]) -> list[str]:
    """What a cell and a saved notebook tell of the turns."""
    turns: list[Turn] = []
    builder: TurnBuilder | None = None
    for message in messages:
        if message.event == "user_message":
            turns.append(Turn(str(message.metadata["message"])))
            builder = TurnBuilder(turns[-1])
        if builder is not None:
            builder.feed(message)
    return list(_lines(record.render(turns)))


def _lines(page: str) -> Iterator[str]:
    for line in re.sub(r"<[^>]+>", " ", page).splitlines():
        if words := re.sub(r"\(\d+ (of|step).*|\d+ steps?,.*|[\d.]+ ms|You:|Agent:", "", line).strip():
            yield words


def places(text: str, said: Sequence[str]) -> list[int]:
    """Where each of ``said`` is told; an error if that is not once."""
    assert {words: text.count(words) for words in said} == dict.fromkeys(said, 1), text
    return [text.index(words) for words in said]


async def test_every_way_to_tell_a_run_tells_each_text_once(workshop: Workshop) -> None:
    session = await workshop.start("cut off", ask_user=True, approval="always")
    said = [await turn_that_waits(session, workshop.api, wait, end) for wait in WAITS for end in ENDS]
    await turn_cut_in_a_reply(workshop, session)
    kept, live = [await events(workshop, session, stream=stream) for stream in (False, True)]
    ends = [one for one in kept if one.type == "agent_response"]
    assert [one.metadata["unfinished"] for one in ends[:-1]] == [""] * len(said)
    assert [one.content for one in ends[:-1]] == said, "the documented answer has what was said so far"
    cut = ends[-1].content
    assert cut == ends[-1].metadata["unfinished"] and LONG.startswith(cut) and cut not in ("", LONG)
    await workshop.registry.end(session.id)
    run = await Run.from_store(workshop.store, session.id)
    assert (await run.replay()).identical
    for text in (
        "\n".join(told(live)),
        "\n".join(told(kept)),
        readable(run.to_html()),
        run.to_markdown().replace("\\", ""),
    ):
        order = places(text, [*said, cut])
        assert order == sorted(order)
    assert told(live) == told(kept), "a cell that watched, and one that came later"
    assert [row["text"] for row in step_rows(run)] == said
    parts: list[dict[str, Any]] = [part for one in conversation(run)["messages"] for part in one["content"]]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    assert [words for words in texts if words in said] == said


def readable(page: str) -> str:
    """The transcript of the viewer's page."""
    return re.sub(r"<[^>]+>", " ", page[page.index("Transcript") :])


async def test_an_answer_after_a_question_is_told_after_it(workshop: Workshop) -> None:
    workshop.api.policy = Script([reply("I wonder.", WAITS["question"])], end="So be it.")
    session = await workshop.start("answered", ask_user=True, approval="never")
    await session.send("Ask")
    await until(lambda: session.gate.question)
    await session.answer("The red one", by="ada")
    assert session.turn_task is not None
    await session.turn_task
    run = await Run.from_store(workshop.store, session.id)
    for text in (readable(run.to_html()), run.to_markdown().replace("\\", "")):
        order = places(text, ["I wonder.", "Which one?", "The red one", "So be it."])
        assert order == sorted(order)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_persons_step_in_the_middle_of_a_reply_cuts_it_nowhere(streamed: bool) -> None:
    builder = TurnBuilder(Turn("go"))

    def say(content: str) -> None:
        if streamed:
            builder.feed(Message("agent_delta", content, metadata={"kind": "text"}))

    say("I cli")
    human = {"tool_use_id": "h1", "tool": "left_click", "step": 1, "status": "completed"}
    builder.feed(Message("tool_execution", metadata={"actor": "human"}, raw=human))
    say("ck.")
    builder.feed(Message("status", metadata={"event": "usage", "said": "I click."}))
    first, *rest = builder.turn.items
    assert getattr(first, "human", False) and rest == ["I click."]
