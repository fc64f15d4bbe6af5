"""What recording costs and what replaying saves: ``python -m benchmarks.replay``.

A run of 50 steps on a local desktop, the strict stand-in as the model. Reported are ratios and differences, each the
median of several runs:

- recording: milliseconds more per step, and until the first streamed byte, than without a recorder;
- recorded replay against the live run: how many times faster, and whether the conversation is the same to the byte.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cambio_lab.agent import Agent
from cambio_lab.agent.client import ModelClient
from cambio_lab.agent.gate import Gate
from cambio_lab.agent.options import AgentOptions
from cambio_lab.desktop.base import Desktop
from cambio_lab.desktop.sandbox.provider import LocalProvider
from cambio_lab.events import Event, RequestSent, TextDelta, ThinkingDelta, TurnFailed
from cambio_lab.recording.recorder import Recorder
from cambio_lab.replay import ReplayTransport
from cambio_lab.reports import Run
from cambio_lab.sessions.registry import Registry
from cambio_lab.settings import Settings
from cambio_lab.store import Store
from tests.agent.fake_desktop import FakeDesktop
from tests.agent.stream import turn_events

STEPS = 50
MODEL = "claude-sonnet-5-5"


@contextlib.contextmanager
def stand_in(delay: float = 0.0) -> Iterator[str]:
    """The Messages API in a process of its own, so that its work is not counted as ours; its address."""
    command = [sys.executable, "-m", "tests.messages_api", "--policy=steps", f"--count={STEPS}", f"--delay={delay}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = dict(part.split("=", 1) for part in process.stdout.readline().split())
    os.environ["ANTHROPIC_API_KEY"] = found["ANTHROPIC_API_KEY"]
    try:
        yield found["ANTHROPIC_BASE_URL"]
    finally:
        process.terminate()
        process.communicate()


async def turn(agent: Agent) -> tuple[float, list[float]]:
    """One turn of :data:`STEPS` steps: seconds, and the milliseconds from each request to its first piece."""
    began, sent, waits = time.perf_counter(), 0.0, []
    last: Event | None = None
    async for event in turn_events(agent, "work"):
        if isinstance(event, RequestSent):
            sent = time.perf_counter()
        elif isinstance(event, TextDelta | ThinkingDelta) and sent:
            waits.append((time.perf_counter() - sent) * 1000)
            sent = 0.0
        last = event
    assert not isinstance(last, TurnFailed), last
    return time.perf_counter() - began, waits


async def recording(run: Run, rounds: int) -> dict[str, float]:
    """The same turns with and without a recorder, alternating.

    Replies come from the recorded ones at once and the desktop is one in memory with pictures of 250 KB, so that
    nothing but the loop and the recorder takes time.
    """
    options = AgentOptions(model=MODEL, max_steps=1000)
    replies = [{**one, "error": None} for one in run.contents.exchanges]
    results: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as directory:
        store = await Store.open(Path(directory))
        for number in range(2 * rounds + 2):
            recorded = number % 2 == 0
            desktop: Desktop = FakeDesktop(noise=60)
            client = ModelClient(transport=ReplayTransport(replies, lambda index, body: None))
            recorder = None
            if recorded:
                recorder = await Recorder.open(store, f"session-{number}")
                await recorder.begin(None, options=options, desktop=desktop, approval="never")
                client.wrap, desktop = recorder.transport, recorder.desktop(desktop)
            agent = Agent(desktop=desktop, options=options, gate=Gate("never", 60), client=client)
            seconds, waits = await turn(agent)
            await agent.aclose()
            await client.aclose()
            if recorder is not None:
                await recorder.aclose()
            if number >= 2:  # the first of each kind warms up
                results[recorded].append((seconds * 1000 / STEPS, statistics.median(waits)))
        await store.close()

    def median(which: bool, column: int) -> float:
        return statistics.median(result[column] for result in results[which])

    return {
        "step_plain_ms": median(False, 0),
        "step_recorded_ms": median(True, 0),
        "added_per_step_ms": median(True, 0) - median(False, 0),
        "first_byte_plain_ms": median(False, 1),
        "first_byte_recorded_ms": median(True, 1),
        "added_to_first_byte_ms": median(True, 1) - median(False, 1),
    }


async def replaying(url: str, rounds: int) -> tuple[Run, dict[str, Any]]:
    """A live session on a real desktop against its recorded replay."""
    settings = Settings(model=MODEL, base_url=url, approval="never")
    provider = LocalProvider(settings, server_id="bench")
    with tempfile.TemporaryDirectory() as directory:
        store = await Store.open(Path(directory))
        registry = Registry(
            settings=settings, store=store, provider_for=lambda kind: provider, encode=lambda event, view: None
        )
        await registry.start()
        session = await registry.create("bench", {"max_steps": 1000})
        began = time.perf_counter()
        await session.send("work")
        assert session.turn_task is not None
        await session.turn_task
        live = time.perf_counter() - began
        await registry.end(session.id)
        run = await Run.from_store(store, session.id)
        played = [await run.replay() for _ in range(rounds)]
        await registry.stop()
        await provider.stop()
        await store.close()
    seconds = statistics.median(one.seconds for one in played)
    return run, {
        "steps": len(run.rows),
        "requests": len(run.contents.exchanges),
        "live_s": live,
        "replay_s": seconds,
        "times_faster": live / seconds,
        "identical": all(one.identical for one in played),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model-seconds", type=float, default=1.0, help="time of the stand-in for each reply")
    options = parser.parse_args()
    with stand_in(options.model_seconds) as url:
        run, found = await replaying(url, options.rounds)
    report = {"replay": {"model_s": options.model_seconds, **found}, "recording": await recording(run, options.rounds)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
