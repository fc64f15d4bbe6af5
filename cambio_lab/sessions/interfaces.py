"""What a session is given (its agent, what the sessions of a server share) and what it hands out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from cambio_lab.agent.gate import Gate
from cambio_lab.agent.options import AgentOptions, TurnOptions
from cambio_lab.agent.transcript import close_open_batch
from cambio_lab.agent.turn import Emit
from cambio_lab.desktop.base import Desktop, Screenshot
from cambio_lab.events import Event, Status, Usage
from cambio_lab.recording.masking import Mask
from cambio_lab.recording.pruning import Quota
from cambio_lab.recording.recorder import HumanCall
from cambio_lab.replay import recorded_agent
from cambio_lab.settings import Settings
from cambio_lab.store import Store

from .config import SessionConfig
from .secrets import SecretDesktop, introduction

if TYPE_CHECKING:
    from .state import SessionState


@dataclass(frozen=True, slots=True)
class SessionView:
    """The session at the moment of one event. ``time`` is the event's, in epoch seconds.

    ``message_id`` is the user message of the running turn, ``reply_id`` the stored answer (at its end only),
    ``image_sha256`` the digest of the screenshot that the event carries, ``cost_usd`` what the reply cost whose first
    call the event is about, ``denied`` whether a person denied that call, ``turn_usage`` what the running turn has
    used so far.
    """

    session_id: str
    time: float
    state: Status
    steps: int
    usage: Usage
    message_id: str | None = None
    reply_id: str | None = None
    image_sha256: str | None = None
    control: str | None = None
    cost_usd: float | None = None
    denied: bool = False
    turn_usage: Usage | None = None


Encode = Callable[[Event, SessionView], dict[str, Any] | None]
"""Turns an event into the body of a message (without ``sequence``), or ``None`` when no socket shows it."""


class Viewer(Protocol):
    """A connection that watches the desktop."""

    name: str

    def may_act_changed(self) -> None:
        """Called on the event loop at the moment in which :meth:`Session.may_act` may answer differently."""

    def report(self) -> None:
        """Called on the event loop to have the session told at once of what this viewer did."""

    def session_ended(self, reason: str) -> None:
        """Called once, on the event loop, when there is nothing to watch any more."""


class Clock(Protocol):
    """Wall time for what people read, monotonic time for durations: the wall clock may be set."""

    def time(self) -> float: ...

    def monotonic(self) -> float: ...


class SessionAgent(Protocol):
    """What a session asks of an agent; :class:`cambio_lab.agent.loop.Agent` is one."""

    @property
    def history(self) -> list[dict[str, Any]]: ...

    async def run(self, content: str, emit: Emit, *, options: TurnOptions | None = None) -> None:
        """Carry out one turn; the last event is exactly one ``TurnFinished`` or ``TurnFailed``."""

    def clear(self) -> None: ...

    async def human_step(self, call: HumanCall | None, screenshot: Screenshot | None = None) -> int:
        """Count a step that a person made; record it as a ``call`` to the desktop, and what was seen after it."""

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
    spent: Usage = Usage()
    steps: int = 0


AgentFactory = Callable[[AgentRequest], Awaitable[SessionAgent]]


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the sessions of a server share."""

    settings: Settings
    store: Store
    encode: Encode
    clock: Clock
    quota: Quota
    build_agent: AgentFactory
    changed: Callable[[SessionState], None]
    """Called after anything that a listing shows has changed."""
    failed: Callable[[str, str], None]
    """Called with a session's id and a reason when it cannot go on; the registry ends it."""
    notify: Callable[[str, str, Sequence[str]], None]
    """Called with a session's name, what its agent asks, and the choices: a person is needed."""


def with_secrets(request: AgentRequest) -> AgentRequest:
    """Return the request of a session with secrets: its desktop fills them in, and its prompt names them."""
    config, desktop = request.config, request.desktop
    if not config.secrets:
        return request
    if not desktop.recorded:  # a recording knows the placeholders only
        desktop = SecretDesktop(desktop, config.secrets)
    words = introduction(sorted(config.secrets))
    config = config.changed(system=f"{config.system}\n\n{words}" if config.system else words)
    return replace(request, config=config, desktop=desktop)


def default_factory(settings: Settings, store: Store) -> AgentFactory:
    """The real agent with the real SDK, recorded as it works; on a recorded desktop it is replayed."""

    return partial(build_agent, settings, store)


async def build_agent(settings: Settings, store: Store, request: AgentRequest, **more: Any) -> SessionAgent:
    """Return the agent of a session; ``more`` are arguments of :func:`cambio_lab.replay.recorded_agent.build_agent`."""
    return await recorded_agent.build_agent(
        store,
        request.session_id,
        desktop=request.desktop,
        options=AgentOptions.from_settings(settings, request.config.given()),
        gate=request.gate,
        history=request.history,
        spent=request.spent,
        steps=request.steps,
        **more,
    )


async def stored_conversation(store: Store, session_id: str) -> list[dict[str, Any]]:
    """Return what is stored, with calls that were never answered closed as interrupted, on disk as well."""
    history = await store.transcript.load(session_id)
    closed = close_open_batch(history)
    if added := closed[len(history) :]:
        await store.write(*[await store.transcript.appending(session_id, message) for message in added])
    return closed
