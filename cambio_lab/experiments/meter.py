"""Count what an attempt's agent does: steps, tokens, seconds, and how its turn ended."""

from __future__ import annotations

import asyncio
from typing import Any

from ..agent.options import TurnOptions
from ..agent.turn import Emit
from ..desktop.base import Desktop
from ..events import Event, ModelReplied, ToolFinished, ToolStarted, TurnFailed, TurnFinished, Usage
from ..recording.masking import Mask
from ..sessions import SessionAgent
from .pace import PacedClient
from .policies import PolicyTransport


class Meter:
    """Counts of one session. Times are seconds."""

    def __init__(self, client: PacedClient | None, policy: PolicyTransport | None = None) -> None:
        self.client = client
        self.policy = policy
        """Where a policy takes the model's place."""
        self.steps = 0
        self.most_steps = 0
        """Tool calls the attempt may make in all its turns; 0: no limit of ours."""
        self.usage = Usage()
        self.model_seconds = 0.0
        self.desktop_seconds = 0.0
        self.end: TurnFinished | TurnFailed | None = None
        """How the last turn ended."""
        self.out_of_steps = asyncio.Event()

    def see(self, event: Event) -> None:
        if isinstance(event, ModelReplied):
            self.usage += event.usage
            self.model_seconds += event.model_ms / 1000
        elif isinstance(event, ToolStarted):
            self.steps += 1
            if self.most_steps and self.steps > self.most_steps:
                self.out_of_steps.set()
        elif isinstance(event, ToolFinished):
            self.desktop_seconds += event.timing.total / 1000
        elif isinstance(event, TurnFinished | TurnFailed):
            self.end = event


class MeteredAgent:
    """An agent whose events are counted by a :class:`Meter` before the session stores them."""

    def __init__(self, agent: SessionAgent, meter: Meter) -> None:
        self._agent = agent
        self.meter = meter

    @property
    def history(self) -> list[dict[str, Any]]:
        return self._agent.history

    async def run(self, content: str, emit: Emit, *, options: TurnOptions | None = None) -> None:
        self.meter.end = None

        async def see(event: Event) -> None:
            self.meter.see(event)
            await emit(event)

        await self._agent.run(content, see, options=options)

    def clear(self) -> None:
        self._agent.clear()

    def client_desktop(self, desktop: Desktop, mask: Mask) -> Desktop:
        return desktop

    async def aclose(self) -> None:
        await self._agent.aclose()
