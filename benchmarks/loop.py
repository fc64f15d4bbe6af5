"""What the loop itself costs: an instant model, an instant desktop, and the clock in between.

    python -m benchmarks.loop [--steps 60] [--kilobytes 250] [--sessions 20]

``step`` is from the end of one reply to the arrival of the next request at the transport, ready to be sent: carrying
out a click, taking a picture, serialising the conversation, building and hashing the request; ``cpu`` is what of it the
loop's own thread worked. Beside it the plain SDK, which serialises every picture again each turn, and the event loop's
lag while that many sessions run.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy

from cambio_lab.agent import Agent, AgentOptions, Gate
from cambio_lab.agent.client import ModelClient
from cambio_lab.desktop.base import Screenshot
from cambio_lab.desktop.screen import png
from cambio_lab.events import Event, TurnFinished
from tests.agent.fake_desktop import FakeDesktop
from tests.agent.scripted import reply, text, use

CLICK = reply(use("left_click", "toolu_number", coordinate=[5, 5]))
DONE = reply(text("Done."))


@dataclass
class Instant(httpx2.AsyncBaseTransport):
    """Answers at once; notes when each request arrived and when the reply before it had been handed over."""

    steps: int
    seconds: float = 0.0
    """Model time of each reply."""
    gaps: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    _ended: float = 0.0
    _worked: float = 0.0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._ended:
            self.gaps.append((time.perf_counter() - self._ended) * 1000)
            self.work.append((time.thread_time() - self._worked) * 1000)
        self.sizes.append(int(request.headers["content-length"]))
        done = len(self.sizes)
        answer = CLICK.replace(b"toolu_number", b"toolu_%06d" % done) if done <= self.steps else DONE
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Stream(answer, self))

    def ended(self) -> None:
        self._ended, self._worked = time.perf_counter(), time.thread_time()


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, data: bytes, transport: Instant) -> None:
        self._data = data
        self._transport = transport

    async def __aiter__(self) -> Any:
        await asyncio.sleep(self._transport.seconds)
        self._transport.ended()
        yield self._data


class EncodingDesktop(FakeDesktop):
    """Takes pictures as a real one does: encoded in a thread, a new one each time."""

    def __init__(self, kilobytes: int) -> None:
        super().__init__()
        generator = numpy.random.default_rng(0)
        self._frame = numpy.full((800, 1280, 3), 200, numpy.uint8)
        rows = max(1, kilobytes // 4)
        self._frame[:rows] = generator.integers(0, 255, (rows, 1280, 3), numpy.uint8)

    async def screenshot(self) -> Screenshot:
        return Screenshot(await asyncio.to_thread(png, self._frame), "image/png", 1280, 800)


async def step_times(steps: int, kilobytes: int, model: str = "claude-sonnet-5-5") -> Instant:
    """Milliseconds of each step (on the clock, and of the loop's own thread), and the bytes of each request."""
    desktop = FakeDesktop(noise=max(1, kilobytes // 4))
    transport = Instant(steps)
    client = ModelClient(transport=transport)
    agent = Agent(
        desktop=desktop,
        options=AgentOptions(model=model, max_steps=0, max_cost_usd=0),
        gate=Gate("never"),
        client=client,
    )
    await run(agent)
    await client.aclose()
    return transport


async def run(agent: Agent) -> None:
    events: list[Event] = []

    async def emit(event: Event) -> None:
        events.append(event)

    await agent.run("Go.", emit)
    if not isinstance(events[-1], TurnFinished):
        raise RuntimeError(str(events[-1]))


async def sdk_time(pictures: int, kilobytes: int) -> float:
    """Milliseconds of the plain SDK from the call to the transport, with this history."""
    import anthropic

    transport = Instant(0)
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * (kilobytes * 1366)}}
    messages = [{"role": "user", "content": [block]} for _ in range(pictures)]
    client = anthropic.AsyncAnthropic(
        api_key="x", http_client=anthropic.DefaultAsyncHttpxClient(transport=transport), max_retries=0
    )
    best = float("inf")
    for _ in range(4):
        transport.ended()
        async with client.beta.messages.stream(model="m", max_tokens=10, messages=messages) as stream:  # type: ignore[arg-type]
            best = min(best, transport.work[-1])
            await stream.until_done()
    await client.close()
    return best


async def lag(sessions: int, steps: int, seconds: float = 1.0) -> tuple[list[float], list[float]]:
    """The event loop's lag in milliseconds, every 5 ms, while ``sessions`` agents act and pictures are encoded.

    And the work of the loop's own thread between two looks, which other programs on the machine do not change.
    Replies take ``seconds``, so all sessions together make ``sessions / seconds`` steps a second.
    """
    agents: list[tuple[Agent, ModelClient]] = []
    for _ in range(sessions):
        client = ModelClient(transport=Instant(steps, seconds * (0.8 + 0.4 * len(agents) / sessions)))
        await client.open("claude-sonnet-5-5")
        options = AgentOptions(max_steps=0, max_cost_usd=0)
        agents.append((Agent(desktop=EncodingDesktop(250), options=options, gate=Gate("never"), client=client), client))
    found: list[float] = []
    busy: list[float] = []

    async def watch() -> None:
        while True:
            before, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.005)
            found.append((time.perf_counter() - before - 0.005) * 1000)
            busy.append((time.thread_time() - worked) * 1000)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(run(agent) for agent, _ in agents), *([] if agents else [asyncio.sleep(10)]))
    watching.cancel()
    for _, client in agents:
        await client.aclose()
    return found, busy


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kilobytes", type=int, default=250)
    parser.add_argument("--sessions", type=int, default=20)
    options = parser.parse_args()
    await step_times(3, 1)  # loads the SDK
    small = await step_times(20, 20)
    median = statistics.median
    print(f"step, first 20, 20 KB pictures: {median(small.gaps):.2f} ms, cpu {median(small.work):.2f} ms")
    found = await step_times(options.steps, options.kilobytes)
    for at in (5, 20, 50):
        if at < len(found.gaps):
            near = slice(max(0, at - 4), at + 4)
            print(
                f"step with {at} pictures of {options.kilobytes} KB: {median(found.gaps[near]):.1f} ms,"
                f" cpu {median(found.work[near]):.1f} ms, request {found.sizes[at] / 1e6:.1f} MB"
            )
    print(f"plain SDK with 50 pictures of {options.kilobytes} KB: cpu {await sdk_time(50, options.kilobytes):.1f} ms")
    for sessions in (0, options.sessions):
        lags, busy = await lag(sessions, 15)
        print(
            f"event-loop lag, {sessions} sessions: p50 {quantile(lags, 0.5):.2f} ms, p99 {quantile(lags, 0.99):.2f} ms,"
            f" cpu between two looks p99 {quantile(busy, 0.99):.2f} ms"
        )


if __name__ == "__main__":
    asyncio.run(main())
