"""How a session gets its agent: what the factory is given, the default factory, the stored conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cambio_lab.agent.gate import Gate
from cambio_lab.agent.options import AgentOptions, TurnOptions
from cambio_lab.agent.transcript import close_open_batch
from cambio_lab.agent.turn import Emit
from cambio_lab.desktop.base import Desktop
from cambio_lab.events import Usage
from cambio_lab.recording.masking import Mask
from cambio_lab.settings import Settings
from cambio_lab.store import Store

from .config import SessionConfig
from .secrets import SecretDesktop, introduction

NOTHING = Usage()


class SessionAgent(Protocol):
    """What a session asks of an agent; :class:`cambio_lab.agent.loop.Agent` is one."""

    @property
    def history(self) -> list[dict[str, Any]]: ...

    async def run(self, content: str, emit: Emit, *, options: TurnOptions | None = None) -> None:
        """Carry out one turn; the last event is exactly one ``TurnFinished`` or ``TurnFailed``."""

    def clear(self) -> None: ...

    def client_desktop(self, desktop: Desktop, mask: Mask) -> Desktop:
        """Return ``desktop`` as the session's clients get it; an agent that records also records what they do."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """Everything an agent needs to begin, or to go on after a restart (``history``, ``spent``, ``steps``)."""

    session_id: str
    config: SessionConfig
    desktop: Desktop
    gate: Gate
    history: Sequence[dict[str, Any]] = ()
    spent: Usage = NOTHING
    steps: int = 0


def agent_request(
    session_id: str,
    config: SessionConfig,
    desktop: Desktop,
    gate: Gate,
    history: Sequence[dict[str, Any]] = (),
    spent: Usage = NOTHING,
    steps: int = 0,
) -> AgentRequest:
    """The request for a session's agent; with secrets, its desktop fills them in and its prompt names them."""
    if config.secrets:
        if not desktop.recorded:  # a recording knows the placeholders only
            desktop = SecretDesktop(desktop, config.secrets)
        words = introduction(sorted(config.secrets))
        config = config.changed(system=f"{config.system}\n\n{words}" if config.system else words)
    return AgentRequest(session_id, config, desktop, gate, history, spent, steps)


AgentFactory = Callable[[AgentRequest], Awaitable[SessionAgent]]


def default_factory(settings: Settings, store: Store) -> AgentFactory:
    """The real agent with the real SDK, recorded as it works; on a recorded desktop it is replayed."""

    async def build(request: AgentRequest) -> SessionAgent:
        recorded = await asyncio.to_thread(_module)
        agent: SessionAgent = await recorded.build_agent(
            store,
            request.session_id,
            desktop=request.desktop,
            options=AgentOptions.from_settings(settings, request.config.given()),
            gate=request.gate,
            history=request.history,
            spent=request.spent,
            steps=request.steps,
        )
        return agent

    return build


def _module() -> Any:
    from cambio_lab.replay import recorded_agent

    return recorded_agent


async def stored_conversation(store: Store, session_id: str) -> list[dict[str, Any]]:
    """Return what is stored, with calls that were never answered closed as interrupted, on disk as well."""
    history = await store.transcript.load(session_id)
    closed = close_open_batch(history)
    if added := closed[len(history) :]:
        await store.write(*[await store.transcript.appending(session_id, message) for message in added])
    return closed
