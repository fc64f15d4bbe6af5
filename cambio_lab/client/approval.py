"""A call of the agent that waits for a person, and how a program answers for one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidRequest
from .message import Message

if TYPE_CHECKING:
    from .session import Session


@dataclass(frozen=True)
class Approval:
    """What wants to run. ``shown`` is exactly that, invisible characters escaped; ``tool`` its name."""

    session: Session
    tool_use_id: str
    tool: str
    arguments: Mapping[str, Any]
    shown: str
    expires_at: str

    @classmethod
    def parse(cls, session: Session, metadata: Mapping[str, Any]) -> Approval:
        arguments = metadata.get("arguments")
        return cls(
            session,
            str(metadata.get("tool_use_id", "")),
            str(metadata.get("tool", "")),
            arguments if isinstance(arguments, Mapping) else {},
            str(metadata.get("shown", "")),
            str(metadata.get("expires_at", "")),
        )

    async def approve(self) -> None:
        """Let it run. Raises ``SessionConflict`` when it was decided meanwhile."""
        await self.session.approve(self.tool_use_id)

    async def deny(self) -> None:
        """Refuse it; the agent is told and goes on without it."""
        await self.session.deny(self.tool_use_id)


Approve = Callable[[Approval], Any]
"""Says with ``True`` or ``False`` whether a waiting call may run; may be ``async``."""


async def decide(session: Session, message: Message, approve: Approve) -> None:
    """Ask ``approve`` about the call in ``message`` and answer. What it raises is raised after a denial."""
    request = Approval.parse(session, message.metadata)
    try:
        verdict = approve(request)
        allowed = await verdict if inspect.isawaitable(verdict) else verdict
    except BaseException:
        await request.deny()
        raise
    if not isinstance(allowed, bool):
        await request.deny()
        raise InvalidRequest(f"approve returned {allowed!r}.", hint="Return True or False.")
    await (request.approve() if allowed else request.deny())
