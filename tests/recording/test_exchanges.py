"""The recorder passes every byte on as it comes, and what it notes is what passed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from cambio_lab.agent.http import MadeReply
from cambio_lab.errors import ReplayDiverged
from cambio_lab.recording.recorder import Exchange, RecordingTransport
from cambio_lab.replay import ReplayTransport


class Notes:
    def __init__(self) -> None:
        self.begun: list[Exchange] = []
        self.over: list[Exchange] = []

    def sent(self, exchange: Exchange) -> None:
        self.begun.append(exchange)

    async def ended(self, exchange: Exchange) -> None:
        self.over.append(exchange)


class Service(httpx2.AsyncBaseTransport):
    def __init__(self, body: Callable[[], AsyncIterator[bytes]]) -> None:
        self.body = body

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream", "set-cookie": "secret=1", "request-id": "req_1"}
        return httpx2.Response(200, headers=headers, stream=MadeReply(self.body()), request=request)


async def whole() -> AsyncIterator[bytes]:
    for piece in (b"one", b"two", b"three"):
        yield piece


async def test_notes_what_passes() -> None:
    notes = Notes()
    async with httpx2.AsyncClient(transport=RecordingTransport(Service(whole), notes.sent, notes.ended)) as client:
        answer = await client.post("http://x/v1/messages", content=b"{}", headers={"authorization": "Bearer secret"})
    assert answer.content == b"onetwothree"
    (exchange,) = notes.over
    assert (b"".join(exchange.body), exchange.response, exchange.status, exchange.error) == (
        b"{}",
        b"onetwothree",
        200,
        None,
    )
    assert exchange.headers == {"content-type": "text/event-stream", "request-id": "req_1"}
    assert exchange.first_byte_ms is not None and exchange.total_ms is not None
    assert exchange.total_ms >= exchange.first_byte_ms
    assert "secret" not in repr(exchange)


async def test_the_first_byte_is_not_held_up() -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await gate.wait()
        yield b"second"

    notes = Notes()
    async with (
        httpx2.AsyncClient(transport=RecordingTransport(Service(slow), notes.sent, notes.ended)) as client,
        client.stream("POST", "http://x/v1/messages", content=b"{}") as answer,
    ):
        pieces = answer.aiter_raw()
        assert await asyncio.wait_for(anext(pieces), 2) == b"first"
        assert notes.over == []
        gate.set()
        assert [piece async for piece in pieces] == [b"second"]
    assert len(notes.over) == 1


async def test_what_is_cut_off_is_noted_as_far_as_it_came() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first"
        raise httpx2.ReadError("gone")

    notes = Notes()
    async with httpx2.AsyncClient(transport=RecordingTransport(Service(broken), notes.sent, notes.ended)) as client:
        with pytest.raises(httpx2.ReadError):
            await client.post("http://x/v1/messages", content=b"{}")
        client._transport = RecordingTransport(Service(whole), notes.sent, notes.ended)
        async with client.stream("POST", "http://x/v1/messages", content=b"{}") as answer:
            await anext(answer.aiter_raw())
    assert [(e.response, e.error) for e in notes.over] == [(b"first", "ReadError"), (b"one", "cancelled")]


async def test_replay_gives_it_back_and_says_what_differs() -> None:
    answered: dict[str, Any] = {"status": 200, "headers": {"content-type": "text/plain"}, "response": "a"}
    recorded = [answered, {"status": None, "headers": {}, "error": "ConnectError"}]
    transport = ReplayTransport(
        recorded, lambda index, body: None if b"".join(body) == b"same" else "it asks something else"
    )
    async with httpx2.AsyncClient(transport=transport) as client:
        assert (await client.post("http://x", content=b"same")).content == b"a"
        with pytest.raises(httpx2.ConnectError):
            await client.post("http://x", content=b"same")
        with pytest.raises(ReplayDiverged, match=r"the run asks the model a 3\. time"):
            await client.post("http://x", content=b"same")
    other = ReplayTransport(recorded, lambda index, body: "it asks something else")
    async with httpx2.AsyncClient(transport=other) as client:
        for _ in range(2):
            with pytest.raises(ReplayDiverged, match="something else"):
                await client.post("http://x", content=b"other")
