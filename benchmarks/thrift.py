"""What a run costs beside the same steps as Anthropic's computer-use-demo loop would send them.

    python -m benchmarks.thrift [--steps 50 300] [--models claude-sonnet-5-5 claude-sonnet-5] [--heavy]

The real agent runs against the strict stand-in, which charges as the service does (prefix match at the markers,
five-minute life, its own price table). The same messages are then charged as the demo sends them: markers on system
and the last three user turns, nothing ever cleared. ``--heavy`` uses pictures of 250 KB, to see the bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from typing import Any

from cambio_lab.agent import Agent, AgentOptions, Gate
from cambio_lab.agent.client import ModelClient
from cambio_lab.events import HistoryAppended, HistoryDropped, TurnFinished
from tests.agent.fake_desktop import FakeDesktop
from tests.agent.stream import turn_events
from tests.messages_api import MessagesApi, Steps
from tests.messages_api import prompt as stand_in_prompt
from tests.messages_api.images import Measured
from tests.messages_api.models import MODELS, cost_usd

EPHEMERAL = {"type": "ephemeral"}


@dataclass
class Measurement:
    """One run: dollars of ours and of the demo's loop, and how heavy our requests became."""

    model: str
    steps: int
    ours: float
    demo: float
    most_megabytes: float
    most_pictures: int
    summaries: int
    seconds: float

    @property
    def ratio(self) -> float:
        return self.ours / self.demo


async def measure(model: str, steps: int, *, heavy: bool = False, batch: int = 2) -> Measurement:
    """Run ``steps`` requests of ``batch`` calls each, every one ending in a picture."""
    desktop = FakeDesktop(noise=64 if heavy else 0)
    told: list[dict[str, Any]] = []
    summaries = 0
    started = time.perf_counter()
    with MessagesApi(policy=Steps(count=batch * steps, batch=batch, thoughts=True)) as api:
        client = ModelClient(base_url=api.base_url, api_key=api.key)
        options = AgentOptions(model=model, max_steps=0, max_cost_usd=0)
        agent = Agent(desktop=desktop, options=options, gate=Gate("never"), client=client)
        last: Any = None
        dropped = False
        async for last in turn_events(agent, "Make the steps."):
            if isinstance(last, HistoryDropped):
                summaries, dropped = summaries + 1, True
            elif isinstance(last, HistoryAppended) and not (dropped and _is_summary(last.message)):
                told.append(last.message)
                dropped = False
        await agent.aclose()
        await client.aclose()
        if not isinstance(last, TurnFinished) or api.refusals:
            raise RuntimeError(f"the run did not finish cleanly: {last}, {api.refusals}")
        pictures = max(_pictures(body) for body in api.bodies)
        most = max(request.size for request in api.requests) / 1e6
        demo = demo_cost(model, api.bodies[0], told)
        ours = api.spent_usd
    seconds = time.perf_counter() - started
    return Measurement(model, steps, ours, demo, most, pictures, summaries, seconds)


def demo_cost(model_id: str, first: dict[str, Any], told: list[dict[str, Any]]) -> float:
    """The same conversation as computer-use-demo sends it with prompt caching (``only_n_most_recent_images`` is 0)."""
    model, cache, measured, total = MODELS[model_id], stand_in_prompt.PromptCache(), Measured(), 0.0
    for index, message in enumerate(told):
        if message["role"] != "assistant":
            continue
        body = {**first, "context_management": None, "messages": _marked(told[:index])}
        usage = cache.charge(stand_in_prompt.pieces(body, body["messages"], model, measured), model)
        thinking = sum(
            stand_in_prompt.text_tokens(block["thinking"])
            for block in message["content"]
            if block["type"] == "thinking"
        )
        said = sum(
            stand_in_prompt.text_tokens(block.get("text") or str(block.get("input", "")))
            for block in message["content"]
            if block["type"] in {"text", "tool_use"}
        )
        total += cost_usd(model, {**usage, "output_tokens": 1 + said + thinking})
    return total


def _marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``_inject_prompt_caching`` of the demo: the last blocks of the last three user turns."""
    marked = list(messages)
    for index in [i for i, message in enumerate(messages) if message["role"] == "user"][-3:]:
        content = list(messages[index]["content"])
        content[-1] = {**content[-1], "cache_control": EPHEMERAL}
        marked[index] = {"role": "user", "content": content}
    return marked


def _is_summary(message: dict[str, Any]) -> bool:
    """Whether a message only stands for others that left: the demo's loop has no such thing."""
    return not any(block["type"] in {"tool_use", "tool_result"} for block in message["content"])


def _pictures(body: dict[str, Any]) -> int:
    return sum(
        inner["type"] == "image"
        for message in body["messages"]
        for block in message["content"]
        for inner in ([block] if block["type"] == "image" else block.get("content") or [])
        if isinstance(inner, dict)
    )


async def main() -> None:
    """Print one line per run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 300])
    parser.add_argument("--models", nargs="+", default=["claude-sonnet-5-5", "claude-sonnet-5"])
    parser.add_argument("--heavy", action="store_true")
    options = parser.parse_args()
    for model in options.models:
        for steps in options.steps:
            found = await measure(model, steps, heavy=options.heavy)
            print(
                f"{model:20} {steps:4} steps  ours ${found.ours:.3f}  demo ${found.demo:.3f}  ratio {found.ratio:.3f}"
                f"  at most {found.most_megabytes:.1f} MB, {found.most_pictures} pictures a request,"
                f" {found.summaries} summaries  ({found.seconds:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(main())
