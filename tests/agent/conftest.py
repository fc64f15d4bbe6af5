"""Parts that the agent's tests share: a desktop in memory, the strict stand-in, an agent between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from cambio_lab.agent import Agent, AgentOptions, Gate
from cambio_lab.agent.client import ModelClient
from cambio_lab.events import Event
from tests.messages_api import MessagesApi

from .fake_desktop import FakeDesktop
from .scripted import Answer, Scripted
from .stream import turn_events

MakeAgent = Callable[..., Agent]


@pytest.fixture
def desktop() -> FakeDesktop:
    return FakeDesktop()


@pytest.fixture
def api() -> Iterator[MessagesApi]:
    """The strict stand-in; a test that expects no refusal gets its check for free."""
    with MessagesApi() as running:
        yield running
        assert running.refusals == []


@pytest.fixture
async def make(desktop: FakeDesktop) -> AsyncIterator[MakeAgent]:
    """``make(transport_or_api, **options)``: an agent on the fake desktop; policy ``never`` unless given."""
    open_things: list[tuple[Agent, ModelClient]] = []

    def build(
        service: Any, *, gate: Gate | None = None, history: Any = (), extra_tools: Any = None, **options: Any
    ) -> Agent:
        if isinstance(service, MessagesApi):
            client = ModelClient(
                base_url=service.base_url, api_key=service.key, stall=options.get("model_stall", 120.0)
            )
        else:
            client = ModelClient(transport=service, stall=options.get("model_stall", 120.0))
        agent = Agent(
            desktop=desktop,
            options=AgentOptions(**options),
            gate=gate or Gate("never"),
            client=client,
            history=history,
            extra_tools=extra_tools,
        )
        open_things.append((agent, client))
        return agent

    yield build
    for agent, client in open_things:
        await agent.aclose()
        await client.aclose()


@pytest.fixture
def scripted() -> Callable[..., Scripted]:
    def build(*answers: Answer, repeat: bool = False) -> Scripted:
        return Scripted(*answers, repeat=repeat)

    return build


async def play(agent: Agent, content: str = "Go.", **options: Any) -> list[Event]:
    """A whole turn's events."""
    return [event async for event in turn_events(agent, content, **options)]


def names(found: list[Event]) -> list[str]:
    return [type(event).__name__ for event in found]


def of(found: list[Event], kind: type[Any]) -> list[Any]:
    return [event for event in found if isinstance(event, kind)]


async def until(
    agent: Agent, condition: Callable[[Event], bool], act: Callable[[], Awaitable[None] | None]
) -> list[Event]:
    """Run a turn; call ``act`` once, when ``condition`` first holds for an event."""
    found: list[Event] = []
    acted = False
    async for event in turn_events(agent, "Go."):
        found.append(event)
        if not acted and condition(event):
            acted = True
            outcome = act()
            if outcome is not None:
                await outcome
    assert acted, names(found)
    return found
