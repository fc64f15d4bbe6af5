"""Stand-ins for the two things a session holds, a desktop and an agent, and a clock that can be set."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from cambio_lab.agent.gate import Gate, LimitReached, Stopped
from cambio_lab.agent.options import TurnOptions
from cambio_lab.agent.turn import Emit
from cambio_lab.api.messages import Encoder
from cambio_lab.desktop.base import Desktop, Size
from cambio_lab.desktop.provider import DesktopOptions, ProviderHealth
from cambio_lab.errors import DesktopLost, DesktopUnavailable
from cambio_lab.events import (
    Event,
    HistoryAppended,
    ModelReplied,
    StatusChanged,
    TextDelta,
    Timing,
    ToolFinished,
    ToolStarted,
    TurnFailed,
    TurnFinished,
    Usage,
)
from cambio_lab.recording.placeholders import Mask
from cambio_lab.sessions.agent import AgentRequest
from cambio_lab.sessions.registry import Registry
from cambio_lab.settings import Settings
from cambio_lab.store import Store
from tests.agent.fake_desktop import FakeDesktop

SMALL = Size(320, 320)
COST = Usage(input_tokens=10, output_tokens=5, requests=1, cost_usd=0.25)


class MemoryDesktop(FakeDesktop):
    """A desktop without a process; ``provider`` knows which are open."""

    outlives_server = True

    def __init__(self, provider: MemoryProvider, desktop_id: str) -> None:
        super().__init__(SMALL)
        self.desktop_id = desktop_id
        self.provider = provider

    async def close(self) -> None:
        await super().close()
        self.provider.open.pop(self.desktop_id, None)


class MemoryProvider:
    """Desktops that outlive a registry, as containers do. ``down`` makes it refuse, ``slow`` wait."""

    name = "memory"
    unclean = False

    def __init__(self) -> None:
        self.open: dict[str, MemoryDesktop] = {}
        self.down = False
        self.slow = 0.0
        self.asked: list[DesktopOptions] = []
        self._ids = itertools.count(1)

    async def start(self) -> None: ...

    async def acquire(self, session_id: str, options: DesktopOptions) -> MemoryDesktop:
        self._check()
        await asyncio.sleep(self.slow)
        self.asked.append(options)
        desktop = MemoryDesktop(self, f"memory-{next(self._ids)}")
        self.open[desktop.desktop_id] = desktop
        return desktop

    async def adopt(self, desktop_id: str, session_id: str) -> MemoryDesktop | None:
        self._check()
        return self.open.get(desktop_id)

    async def reap(self, keep: frozenset[str]) -> list[str]:
        self._check()
        removed = [desktop_id for desktop_id in self.open if desktop_id not in keep]
        for desktop_id in removed:
            await self.open[desktop_id].close()
        return removed

    async def health(self) -> ProviderHealth:
        return ProviderHealth(self.name, not self.down, "in memory")

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        if not self.down:
            await self.reap(keep)

    def _check(self) -> None:
        if self.down:
            raise DesktopUnavailable("The engine does not answer.", hint="Start it.")


Script = Callable[["ScriptedAgent", str], AsyncGenerator[Event, None]]


class ScriptedAgent:
    """Does what ``script`` says. The events are those of the real loop, in its order."""

    def __init__(self, request: AgentRequest, script: Script) -> None:
        self.request = request
        self.gate: Gate = request.gate
        self.script = script
        self.history: list[dict[str, Any]] = list(request.history)
        self.steps = request.steps
        self.closed = False
        self.running = 0

    async def run(self, content: str, emit: Emit, *, options: TurnOptions | None = None) -> None:
        async with aclosing(self._play(content, options)) as events:
            async for event in events:
                await emit(event)

    async def _play(self, content: str, options: TurnOptions | None) -> AsyncGenerator[Event, None]:
        self.running += 1
        assert self.running == 1, "two turns at once"
        self.gate.begin()
        self.options = options
        try:
            yield self.say("user", content)
            async with aclosing(self.script(self, content)) as events:
                async for event in events:
                    yield event
        except Stopped:
            yield TurnFinished("", [], 0.1, Usage(), stopped=True)
        except LimitReached as limit:
            yield TurnFinished("", [], 0.1, Usage(), limit=limit.name)
        except DesktopLost as error:
            yield TurnFailed("The desktop is gone.", str(error), 0.1, Usage(), fatal=True)
        finally:
            self.gate.end()
            self.running -= 1

    def client_desktop(self, desktop: Desktop, mask: Mask) -> Desktop:
        return desktop

    def say(self, role: str, content: Any) -> HistoryAppended:
        message = {
            "role": role,
            "content": content if isinstance(content, list) else [{"type": "text", "text": content}],
        }
        self.history.append(message)
        return HistoryAppended(message)

    async def human_step(self, call: Any, screenshot: Any = None) -> int:
        self.steps += 1
        return self.steps

    def clear(self) -> None:
        assert not self.running
        self.history.clear()

    async def aclose(self) -> None:
        await self.gate.aclose()
        self.closed = True


async def answer(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
    """Answers at once, in two pieces."""
    yield StatusChanged("thinking", "The model is thinking.")
    for piece in ("You said ", content):
        yield TextDelta(piece)
    yield ModelReplied(1, "end_turn", COST, 1.0, f"You said {content}")
    yield agent.say("assistant", f"You said {content}")
    yield TurnFinished(f"You said {content}", [], 0.01, COST)


def work(steps: int = 3, *, hold: asyncio.Event | None = None, pause: float = 0.0) -> Script:
    """Clicks ``steps`` times and answers; ``hold`` is waited for before the last click."""

    async def script(agent: ScriptedAgent, content: str) -> AsyncGenerator[Event, None]:
        done: list[str] = []
        for number in range(1, steps + 1):
            await agent.gate.passage()
            agent.steps += 1
            use = {"type": "tool_use", "id": f"toolu_{agent.steps}", "name": "screenshot", "toolset_name": "computer"}
            yield agent.say("assistant", [{**use, "input": {}}])
            yield ToolStarted(use["id"], "screenshot", "computer", {}, agent.steps)
            await agent.gate.race(asyncio.sleep(pause))
            if hold is not None and number == steps:
                await agent.gate.race(hold.wait())
            screenshot = await agent.request.desktop.screenshot()
            yield ToolFinished(
                use["id"],
                "screenshot",
                "computer",
                {},
                agent.steps,
                False,
                "",
                Timing(1, 2, 3, 6),
                screenshot.data,
                "image/png",
                *SMALL,
            )
            result = {"type": "tool_result", "tool_use_id": use["id"], "toolset_name": "computer", "content": "ok"}
            yield agent.say("user", [result])
            done.append("screenshot")
        yield agent.say("assistant", "Done.")
        yield TurnFinished("Done.", done, 0.1, COST)

    return script


class FakeClock:
    """Real time with an offset for each kind."""

    def __init__(self) -> None:
        self.wall = 0.0
        self.steady = 0.0

    def time(self) -> float:
        return time.time() + self.wall

    def monotonic(self) -> float:
        return time.monotonic() + self.steady

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


class Bench:
    """A registry with its parts at hand; can be stopped, crashed and started again on the same directory."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory
        self.settings = Settings(**{"model": "demo", "display": str(SMALL), "keep_sessions": False, **settings})
        self.provider = MemoryProvider()
        self.clock = FakeClock()
        self.script: Script = answer
        self.agents: list[ScriptedAgent] = []
        self.registry: Registry

    async def start(self) -> Registry:
        self.store = await Store.open(self.directory)
        self.registry = Registry(
            settings=self.settings,
            store=self.store,
            provider_for=lambda kind: self.provider,
            encode=Encoder("/"),
            make_agent=self._agent,
            clock=self.clock,
        )
        await self.registry.start()
        return self.registry

    async def stop(self) -> None:
        kept = await self.registry.stop()
        await self.provider.stop(keep=kept)
        await self.store.close()

    async def crash(self) -> None:
        """Leave as ``kill -9`` would: nothing is told to anybody. (Tasks are cancelled, the store just closes.)"""
        await self.store.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _agent(self, request: AgentRequest) -> Any:
        agent = ScriptedAgent(request, lambda one, content: self.script(one, content))
        self.agents.append(agent)
        return agent


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until ``condition()`` is true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.005)


async def within(seconds: float, awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, seconds)


def kinds(messages: Sequence[dict[str, Any]]) -> list[str]:
    """``type`` of each message, with the status or the particular event where there is one."""
    found = []
    for message in messages:
        detail = message.get("metadata", {}).get("event") or message.get("status") or ""
        found.append(f"{message['type']}:{detail}" if detail else message["type"])
    return found
