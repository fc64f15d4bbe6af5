"""A model service, or whoever answers in its place, that never ends its reply."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from cambio_lab.agent import Agent, AgentOptions, Gate
from cambio_lab.agent.client import ModelClient
from cambio_lab.agent.tools import needs_approval
from cambio_lab.events import Event, TurnFailed
from tests.agent.fake_desktop import FakeDesktop
from tests.agent.scripted import events


def line(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


START = line("message_start", message=events([])[0][1]["message"])
TEXT = line("content_block_start", index=0, content_block={"type": "text", "text": ""})
CALL = line("content_block_start", index=0, content_block={"type": "tool_use", "id": "a", "name": "bash", "input": {}})


def block(index: int) -> bytes:
    return line("content_block_start", index=index, content_block={"type": "text", "text": "x"})


class Endless(httpx2.AsyncByteStream):
    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield START
        if self.kind == "text":
            yield TEXT
            part = line("content_block_delta", index=0, delta={"type": "text_delta", "text": "y" * 200}) * 100
        elif self.kind == "arguments":
            yield CALL
            delta = {"type": "input_json_delta", "partial_json": "[" * 200}
            part = line("content_block_delta", index=0, delta=delta) * 100
        elif self.kind == "pings":
            part = b": keep alive " + b"z" * 1000 + b"\n"
            part *= 100
        elif self.kind == "one line":
            yield b"data: "
            part = b"z" * 100_000
        else:
            for index in range(10_000_000):
                yield block(index)
        while True:
            yield part


class Service(httpx2.AsyncBaseTransport):
    def __init__(self, kind: str) -> None:
        self.kind, self.requests = kind, 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests += 1
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=Endless(self.kind), request=request)


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["text", "arguments", "blocks", "pings", "one line"])
async def test_an_endless_reply_is_cut_once_and_does_not_block_the_loop(kind: str) -> None:
    service = Service(kind)
    client = ModelClient(transport=service)
    agent = Agent(desktop=FakeDesktop(), options=AgentOptions(), gate=Gate("never"), client=client)
    await client.open("claude-sonnet-5-5")
    lags: list[float] = []

    async def others() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            lags.append(time.perf_counter() - began - 0.002)

    watching = asyncio.create_task(others())
    found: list[Event] = []

    async def emit(event: Event) -> None:
        found.append(event)

    await agent.run("Go.", emit)
    watching.cancel()
    await agent.aclose()
    await client.aclose()
    end = found[-1]
    assert isinstance(end, TurnFailed) and "reply was cut" in end.details, end
    assert service.requests == 1, "an endless reply is not paid for again"
    lags.sort()
    assert not lags or lags[int(len(lags) * 0.99)] <= 0.02, lags[-5:]


@pytest.mark.parametrize("tool", ["middle_click", "type", "key", "hold_key", "bash"])
def test_risky_covers_what_can_insert_text(tool: str) -> None:
    assert needs_approval("risky", tool, {})
