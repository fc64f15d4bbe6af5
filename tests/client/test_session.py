"""Sessions as a script uses them: send, stream, refusals, lost connections, rate limits."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import time
import typing
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from cambio_lab.client import portal
from cambio_lab.client.channel import Channel
from cambio_lab.client.discovery import Address
from cambio_lab.client.message import Message
from cambio_lab.client.schemas import SessionOptions
from cambio_lab.client.turn import Turn, TurnBuilder
from cambio_lab.client.workbench import Workbench
from cambio_lab.desktop import KINDS
from cambio_lab.errors import (
    AccessDenied,
    CambioError,
    InvalidRequest,
    ServerUnreachable,
    SessionNotFound,
    TurnRunning,
)
from cambio_lab.sessions.config import SessionConfig

from .small_server import TOKEN, SmallServer, SmallSession, endless


async def test_send_returns_the_turn(lab: Workbench) -> None:
    async with await lab.create_session("Flights", model="demo") as session:
        turn = await session.send("hello", screenshots=True)
    assert turn.text == str(turn) == "I typed hello."
    assert [step.summary for step in turn.steps] == ["screenshot", "type 'hello'"]
    assert turn.steps[0].timing["settle_ms"] == 80.0
    assert turn.items[0] == "Let me look. "
    assert turn.cost_usd == 0.0012 and turn.seconds == 1.5 and turn.done and not turn.stopped
    assert turn.screenshot is not None and turn.screenshot.size == (640, 400)
    assert all(step.screenshot is not None and step.screenshot.media_type == "image/jpeg" for step in turn.steps)
    assert session.turns == [turn]
    assert session.status == "inactive"


async def test_stream_gives_every_message(lab: Workbench) -> None:
    session = await lab.create_session()
    kinds = [message.type async for message in session.stream("hi")]
    assert kinds[0] == "status" and kinds[-1] == "agent_response"
    assert kinds.count("agent_delta") == 4 and kinds.count("tool_execution") == 4


async def test_leaving_a_stream_stops_the_turn(lab: Workbench, server: SmallServer) -> None:
    server.script = endless
    session = await lab.create_session()
    stream = session.stream("work")
    async for message in stream:
        if message.type == "agent_delta":
            break
    await stream.aclose()
    await asyncio.wait_for(server.sessions[session.id].stopped.wait(), 2)


async def test_many_turns_use_one_connection(lab: Workbench, server: SmallServer) -> None:
    session = await lab.create_session()
    for number in range(8):
        assert (await session.send(f"n{number}")).text == f"I typed n{number}."
    assert server.connections == 1


@pytest.mark.parametrize("positions", [{0}, {1}, {3}, {5}, {1, 2, 4, 6, 8}])
async def test_a_lost_connection_is_restored(lab: Workbench, server: SmallServer, positions: set[int]) -> None:
    session = await lab.create_session()
    server.sessions[session.id].drop_before = set(positions)
    turn = await session.send("again")
    assert turn.text == "I typed again."
    assert [step.number for step in turn.steps] == [1, 2]
    assert "".join(item for item in turn.items if isinstance(item, str)) == "Let me look. I typed again."
    assert len(server.sessions[session.id].history) == 1, "the message was sent twice"
    assert server.connections == len(positions) + 1


def test_text_of_a_reply_that_broke_off_is_taken_back() -> None:
    turn = Turn("hello")
    builder = TurnBuilder(turn)

    def say(text: str, kind: str = "text") -> None:
        builder.feed(Message("agent_delta", text, metadata={"kind": kind}))

    builder.feed(Message("tool_execution", raw={"tool_use_id": "t1", "tool": "key", "step": 1}))
    for text in ("Now I", " wi🙂"):
        say(text)
    say("", "announce")
    say("more")
    builder.feed(Message("status", "busy", metadata={"event": "retry", "dropped_text": 13}))
    assert len(turn.items) == 1
    say("Now I will.")
    assert turn.items[1:] == ["Now I will."]
    builder.feed(Message("status", "thinking", metadata={"event": "usage", "said": "Now I will."}))
    say("And")
    builder.feed(Message("status", "busy", metadata={"event": "retry", "dropped_text": 3}))
    assert turn.items[1:] == ["Now I will."]


async def test_a_message_that_was_lost_on_the_way_is_sent_again(lab: Workbench, server: SmallServer) -> None:
    session = await lab.create_session()
    small = server.sessions[session.id]
    real, first = server._frame, True

    async def lose_the_first(session: SmallSession, socket: web.WebSocketResponse, body: dict[str, object]) -> None:
        nonlocal first
        if first:
            first = False
            assert socket._req is not None and socket._req.transport is not None
            socket._req.transport.abort()
            return
        await real(session, socket, body)

    server._frame = lose_the_first  # type: ignore[method-assign]
    assert (await session.send("twice?")).text == "I typed twice?."
    assert [row["content"] for row in small.history] == ["twice?"]


@pytest.mark.timing
async def test_429_is_waited_out_on_rest_and_socket(lab: Workbench, server: SmallServer) -> None:
    def refusal() -> web.Response:
        return web.json_response({"message": "Too many."}, status=429, headers={"Retry-After": "0.3"})

    server.refuse = [("POST /sessions", refusal), ("GET /ws/", refusal)]
    started = time.monotonic()
    session = await lab.create_session()
    assert time.monotonic() - started >= 0.3
    started = time.monotonic()
    turn = await session.send("patience")
    assert turn.done and time.monotonic() - started >= 0.3
    assert server.connections == 1


async def test_errors_are_exceptions_with_the_servers_words(lab: Workbench, server: SmallServer) -> None:
    with pytest.raises(InvalidRequest, match="Unknown configuration: effort") as caught:
        await lab.create_session(effort="odd")  # type: ignore[arg-type]
    assert caught.value.details == {"config": ["effort"]}
    with pytest.raises(SessionNotFound):
        await lab.session("Missing")
    async with Workbench(server.url, "wrong") as stranger:
        with pytest.raises(AccessDenied) as denied:
            await stranger.sessions()
    assert "CAMBIO_LAB_TOKEN" in denied.value.hint
    assert denied.value.__notes__ == [denied.value.hint]
    with pytest.raises(InvalidRequest):
        await (await lab.create_session()).send("   ")


@pytest.mark.timing
async def test_a_server_that_is_down_is_reported_quickly() -> None:
    started = time.monotonic()
    async with Workbench("http://127.0.0.1:9", "t") as lab:
        with pytest.raises(ServerUnreachable, match=r"No server answers at http://127\.0\.0\.1:9"):
            await lab.sessions()
    assert time.monotonic() - started < 3


async def test_a_second_message_is_refused(lab: Workbench, server: SmallServer) -> None:
    server.script = endless
    session = await lab.create_session()
    first = asyncio.create_task(session.send("one"))
    await asyncio.wait_for(_until(lambda: bool(server.sessions[session.id].history)), 2)
    with pytest.raises(TurnRunning, match="at work"):
        await session.send("two")
    await session.stop()
    assert (await first).stopped


async def test_a_failed_turn_raises_its_error(lab: Workbench, server: SmallServer) -> None:
    async def fails(session: SmallSession, content: str) -> AsyncIterator[dict[str, object]]:
        yield {"type": "error", "error": "Missing key", "details": "Set ANTHROPIC_API_KEY.", "metadata": {}}

    server.script = fails
    session = await lab.create_session()
    with pytest.raises(CambioError, match="ANTHROPIC_API_KEY") as caught:
        await session.send("go")
    assert type(caught.value).__name__ == "MissingKey"
    assert session.turns[0].error is caught.value and session.turns[0].done


@pytest.mark.timing
async def test_cancelling_stops_the_turn_within_half_a_second(lab: Workbench, server: SmallServer) -> None:
    server.script = endless
    session = await lab.create_session()
    task = asyncio.create_task(session.send("work"))
    await asyncio.wait_for(_until(lambda: bool(session.turns and session.turns[0].items)), 3)
    started = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert time.monotonic() - started < 0.5
    assert task.cancelled() and session.turns[0].stopped and session.turns[0].text == "Working on it"


async def test_blocking_send_and_several_loops(server: SmallServer) -> None:
    """A session made in one ``asyncio.run`` serves the next one, and code that is not async."""

    def script() -> tuple[str, str]:
        lab = Workbench(server.url, TOKEN)
        session = asyncio.run(lab.create_session())
        first = asyncio.run(session.send("one")).text
        second = session.send_blocking("two").text
        asyncio.run(lab.aclose())
        return first, second

    assert await asyncio.to_thread(script) == ("I typed one.", "I typed two.")


async def test_attach_by_name_and_id(lab: Workbench) -> None:
    older, newer = await lab.create_session("Same"), await lab.create_session("Same")
    assert await lab.session("Same") is newer
    assert await lab.session(older.id) is older
    await newer.end()
    await newer.end()  # a second time is no error
    assert await lab.session("Same") is older


async def test_tables_and_health(lab: Workbench) -> None:
    session = await lab.create_session("<b>bold</b>")
    await session.send("x")
    table = await lab.sessions(status="active")
    assert table.total == 1 and table[0]["id"] == session.id
    assert "&lt;b&gt;bold" in table._repr_html_() and "<b>bold" in repr(table)
    history = await session.history(role="user")
    assert [row["content"] for row in history] == ["x"]
    assert (await lab.health())["status"] == "unhealthy"


async def test_no_repr_shows_the_token(lab: Workbench) -> None:
    session = await lab.create_session()
    shown = f"{lab!r} {lab.address!r} {session!r} {session.vnc_url} {session.tools!r}"
    assert TOKEN not in shown


async def test_a_socket_that_ends_a_session_is_an_error_not_a_hang(lab: Workbench, server: SmallServer) -> None:
    server.script = endless
    session = await lab.create_session()
    task = asyncio.create_task(session.send("work"))
    small = server.sessions[session.id]
    await asyncio.wait_for(_until(lambda: bool(small.history)), 2)
    await small.publish({"type": "status", "status": "ended", "content": "The session is over", "metadata": {}})
    for reader in list(small.readers):
        await reader.close()
    with pytest.raises(CambioError, match="over"):
        await asyncio.wait_for(task, 3)


def test_portal_refuses_to_wait_for_itself() -> None:
    async def wait_for_itself() -> None:
        portal.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="cannot wait for itself"):
        portal.run(wait_for_itself())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what it waits for happens on another loop
        await asyncio.sleep(0.01)


def test_create_session_has_every_option_of_the_api() -> None:
    parameters = inspect.signature(Workbench.create_session).parameters
    assert set(parameters) - {"self", "name"} == set(SessionConfig.model_fields)
    documented = set(re.findall(r"^ {4}(\w+): ", inspect.getdoc(Workbench.create_session) or "", re.M))
    assert documented == set(parameters) - {"self"}
    assert set(inspect.signature(Workbench.demonstrate).parameters) - {"self", "task"} == set(
        SessionConfig.model_fields
    )
    desktop, _ = typing.get_args(typing.get_type_hints(SessionOptions)["desktop"])
    assert set(typing.get_args(desktop)) == set(KINDS)


async def test_create_session_takes_names_of_tools_and_functions(lab: Workbench, server: SmallServer) -> None:
    def stock(item: str) -> int:
        """How many are in stock."""
        return 12

    session = await lab.create_session("Tools", tools=["bash", stock])
    assert list(session.tools) == ["stock"]
    assert server.sessions[session.id].config["tools"] == ["bash"]


async def test_what_is_no_question_is_not_asked() -> None:
    channel, seen = Channel(Address("http://127.0.0.1:1"), "a"), list[object]()
    channel.asked = seen.append
    for question in ("May I?", {"tool_use_id": "1"}, ["May I?"]):
        await channel._take(Message("status", "", {"event": "snapshot", "question": question}))
    assert seen == [{"tool_use_id": "1"}, None]
