"""Messages of the agent socket, the connection that carries them, and what one may ask for: approvals and questions."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect

from ..errors import CambioError, InvalidRequest, SessionConflict
from . import UserFunction, calls, portal
from .discovery import Address

if TYPE_CHECKING:
    from .session import Session


class NoRedirect(connect):
    """A WebSocket connection that treats a redirect as a refusal: the token belongs to the address that was asked."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the refusal itself, whatever it points to."""
        return exc


def open_socket(address: Address, url: str, **options: Any) -> NoRedirect:
    """Return the connection to ``url`` on the server at ``address``, with its token and trusted certificates."""
    if address.loopback:  # a proxy variable must not send a loopback address, and its token, elsewhere
        options["proxy"] = None
    return NoRedirect(url, additional_headers=address.headers, ssl=address.tls(), close_timeout=1, **options)


@dataclass(frozen=True)
class Message:
    """``type`` is one of the documented five, ``agent_delta``, or ``connection``, which this client says itself."""

    type: str
    content: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    sequence: int | None = None
    timestamp: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The whole decoded message."""

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Message:
        """From decoded JSON; fields that a message does not have stay empty."""
        fields = ("content", "metadata", "sequence", "timestamp")
        named = {name: raw[name] for name in fields if raw.get(name) is not None}
        return cls(str(raw.get("type", "")), raw=raw, **named)

    @property
    def event(self) -> str:
        """What a ``status`` message is about (``user_message``, ``approval``, ...), else empty."""
        return str(self.metadata.get("event", "")) if self.type == "status" else ""

    @property
    def status(self) -> str:
        """``status`` of a ``status`` or ``tool_execution`` message."""
        return str(self.raw.get("status", ""))

    @property
    def tool(self) -> str:
        """The tool of a ``tool_execution`` message, or of the call that an ``agent_delta`` announces."""
        return str(self.raw.get("tool") or self.metadata.get("tool") or "")

    @property
    def arguments(self) -> Mapping[str, Any]:
        return self.raw.get("arguments") or {}

    @property
    def result(self) -> Mapping[str, Any]:
        return self.raw.get("result") or {}

    @property
    def refusal(self) -> bool:
        """An error that was said to this connection alone: what it asked for was refused."""
        return self.type == "error" and self.sequence is None

    @property
    def ends_turn(self) -> bool:
        """The one good or bad end of a turn."""
        return self.type == "agent_response" or (self.type == "error" and not self.refusal)


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
        names = ("tool_use_id", "tool", "arguments", "shown", "expires_at")
        return cls(session, *(metadata[name] for name in names))

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


@calls
@dataclass(frozen=True)
class Question:
    """A question (``tool`` is ``"ask_user"``), or a request to take over the desktop (``"hand_over"``).

    Without ``free_text`` the answer is one of ``choices``. ``default`` is what the agent goes on with when no answer
    comes until ``expires_at``.
    """

    session: Session
    tool_use_id: str
    tool: str
    question: str
    choices: list[str]
    free_text: bool
    default: str
    expires_at: str

    @classmethod
    def parse(cls, session: Session, metadata: Mapping[str, Any]) -> Question:
        names = ("tool_use_id", "tool", "question", "choices", "free_text", "default", "expires_at")
        return cls(session, *(metadata[name] for name in names))

    async def answer(self, text: str = "") -> None:
        """Answer; empty hands the desktop back. Raises ``SessionConflict`` when it was answered meanwhile."""
        await self.session.answer(text, self.tool_use_id)


Answer = Callable[[Question], Any]
"""Returns the answer as text, or ``None`` to leave it to a person; may be ``async``."""


class Questions:
    """Calls a function of the program for each question, once. Belongs to the portal's loop."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._function: UserFunction | None = None
        self._asked = ""
        self._running: set[asyncio.Task[None]] = set()
        session.channel.asked = self._take

    def answer_with(self, function: Answer) -> None:
        """Call ``function`` from now on."""
        self._function = UserFunction(function)
        portal.submit(self._connect())

    async def _connect(self) -> None:
        with suppress(CambioError):  # the sender of a message is told
            await self._session.channel.connect()
            self._take(self._session.channel.question)

    def _take(self, metadata: Mapping[str, Any] | None) -> None:
        """Answer a question that waits. The same one comes again when the connection does."""
        if metadata is None or self._function is None or metadata.get("tool_use_id") == self._asked:
            return
        self._asked = str(metadata.get("tool_use_id", ""))
        task = asyncio.create_task(self._answer(self._function, Question.parse(self._session, metadata)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, function: UserFunction, question: Question) -> None:
        try:
            text = await function(question)
        except Exception:
            self._session.lab.rest.notice(f"on_question failed; a person may answer.\n{traceback.format_exc(limit=3)}")
            return
        if text is not None:
            with suppress(SessionConflict):  # a person was faster
                await question.answer(str(text))
