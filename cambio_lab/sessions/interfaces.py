"""What the sessions of a server share, and what a session hands out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cambio_lab.events import Event, Status, Usage
from cambio_lab.settings import Settings
from cambio_lab.store import Store

from .agent import AgentFactory

if TYPE_CHECKING:
    from .housekeeping import Quota
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


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the sessions of a server share."""

    settings: Settings
    store: Store
    encode: Encode
    clock: Clock
    quota: Quota
    make_agent: AgentFactory
    changed: Callable[[SessionState], None]
    """Called after anything that a listing shows has changed."""
    failed: Callable[[str, str], None]
    """Called with a session's id and a reason when it cannot go on; the registry ends it."""
    notify: Callable[[str, str, Sequence[str]], None]
    """Called with a session's name, what its agent asks, and the choices: a person is needed."""
