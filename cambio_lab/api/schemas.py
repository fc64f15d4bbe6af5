"""What clients send, in bodies and on sockets, as pydantic models; checked with :func:`parse`.

``scripts/describe_api.py`` writes ``openapi.yaml``, ``asyncapi.yaml`` and the front end's ``schema.ts`` from them and
from the models of what the server sends, which nothing else needs (``scripts/described_*.py``). Import this after the
start hook has, off the event loop: pydantic takes a tenth of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from ..agent.extras import ExtraResult, check_names
from ..errors import InvalidRequest
from ..events import timestamp
from ..sessions.config import SessionConfig
from ..sessions.message import Checked, listed, words
from . import SHORT

if TYPE_CHECKING:
    from ..sessions.session import Session

MOST_TOOLS, MOST_WATCHED = 64, 100
LONGEST_SECONDS = 3600.0

Short = Annotated[str, Field(min_length=1, max_length=SHORT)]
Model = TypeVar("Model", bound=Checked)
Approval = Literal["never", "risky", "always"] | list[str]


def parse(model: type[Model], body: Mapping[str, Any]) -> Model:
    """Return ``body`` as a model; :class:`InvalidRequest` names every field that is unknown or wrong."""
    try:
        return model.model_validate(dict(body))
    except ValidationError as error:
        wrong: dict[str, object] = {
            ".".join(map(str, problem["loc"])) or "body": words(problem) for problem in error.errors()
        }
    raise InvalidRequest(f"The body is not valid: {listed(wrong)}.", details=wrong)


# What clients send


class Asked(Checked):
    """A body that a client sends; keys that it does not have are refused."""


class NewSession(Asked):
    """A session to create."""

    name: Annotated[
        str | None,
        Field(max_length=200, pattern=r"^[^\u0000-\u001f]*$", description="Generated when left out."),
    ] = None
    config: Annotated[
        SessionConfig | None, Field(description="What is left out, or null, is as the server's settings say.")
    ] = None


class SessionChange(Asked):
    """What is named changes."""

    name: Annotated[str | None, Field(max_length=200, pattern=r"^[^\u0000-\u001f]*$")] = None
    approval: Annotated[Approval | None, Field(description="Which actions wait for a person's approval.")] = None
    display: Annotated[str | None, Field(description="Screen in pixels, each side 320 to 4096.")] = None
    pinned: Annotated[bool | None, Field(description="Kept when old runs are removed.")] = None
    tags: Annotated[list[Short] | None, Field(max_length=20, description="Also of a session that has ended.")] = None
    note: Annotated[str | None, Field(max_length=2_000, description="Also of a session that has ended.")] = None


class CellChange(Asked):
    """What a person says of a cell of an experiment; what is left out stays."""

    cell: Annotated[str, Field(min_length=1, max_length=1_000)]
    tags: Annotated[list[Short] | None, Field(max_length=20)] = None
    note: Annotated[str | None, Field(max_length=2_000)] = None


class StopTurn(Asked):
    """Which turn to stop."""

    message_id: Annotated[
        Short | None, Field(description="The turn to stop; 409 when it has ended already. Without it, the running one.")
    ] = None


class AnswerQuestion(Asked):
    """An answer to the agent's question, or the end of a hand-over."""

    text: Annotated[str, Field(max_length=20_000, description="Empty: the desktop is handed back without a word.")] = ""
    tool_use_id: Annotated[Short | None, Field(description="Of the question; without it, the one that waits.")] = None


class Clipboard(Asked):
    """The text of the desktop's clipboard."""

    text: str


class Program(Asked):
    """A program to run on the desktop, apart from the agent's shell and from the record."""

    argv: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    stdin: Annotated[str | None, Field(description="Base64.")] = None
    cwd: Annotated[str | None, Field(description="Default: the desktop's home.")] = None
    env: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] | None, Field(max_length=1000)
    ] = None
    timeout: Annotated[float, Field(gt=0, le=LONGEST_SECONDS, description="Seconds.")] = 30.0


class Said(Asked):
    """A message that a client sends on a socket; keys that it does not have are left alone."""

    model_config = ConfigDict(extra="ignore")


class UserMessage(Said):
    """A message to the agent."""

    type: Literal["message"] = "message"
    content: Annotated[str, Field(min_length=1, max_length=200_000)]
    metadata: Annotated[
        dict[str, Any] | None, Field(description="`options` in it change model, effort and limits for this turn.")
    ] = None
    when: Annotated[
        Literal["next", "idle", "now"],
        Field(description="During a turn: queued for the agent's next request, refused, or sent after a stop."),
    ] = "next"
    session_id: Annotated[Short | None, Field(description="On /ws only.")] = None
    answer_schema: Annotated[
        dict[str, Any] | None, Field(description="A JSON schema that the final text has to fit; refused during a turn.")
    ] = None
    images: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...],
        Field(max_length=20, description="Digests of images uploaded to this session; refused during a turn."),
    ] = ()


class Command(Said):
    """What a person does to a turn."""

    type: Literal["stop", "take_back", "pause", "resume", "approve", "deny", "take_control", "give_back", "answer"]
    tool_use_id: Annotated[
        Short | None, Field(description="Of the call or question that waits; without it, whichever does.")
    ] = None
    text: Annotated[
        str, Field(max_length=20_000, description="Of an answer; may be empty when the desktop is handed back.")
    ] = ""
    message_id: Annotated[
        Short | None,
        Field(description="Of the turn to stop (without it, the running one), or of the queued message to take back."),
    ] = None
    viewer: Annotated[Short | None, Field(description="The name that /vnc was opened with.")] = None
    session_id: Annotated[Short | None, Field(description="On /ws only.")] = None


class OfferedTool(Said):
    """A function that the client runs for the agent."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=20_000)] = ""
    input_schema: Annotated[dict[str, Any], Field(description='A JSON schema with `"type": "object"`.')]
    timeout: Annotated[float, Field(gt=0, le=LONGEST_SECONDS, description="Seconds.")] = 60.0


class OfferTools(Said):
    """Functions that this client runs for the agent; they replace those of an earlier offer."""

    type: Literal["offer_tools"] = "offer_tools"
    tools: Annotated[list[OfferedTool], Field(max_length=MOST_TOOLS)]


class ToolResult(Said):
    """The result of a tool_call."""

    type: Literal["tool_result"] = "tool_result"
    tool_use_id: Short
    text: str
    is_error: bool = False
    image: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{64}$", description="Digest of an image uploaded to this session.")
    ] = None


class Watch(Said):
    """Whose thumbnails this client shows now."""

    type: Literal["watch"] = "watch"
    sessions: Annotated[list[str], Field(max_length=MOST_WATCHED)]
    width: Annotated[int, Field(ge=16, le=640)] = 240


class Follow(Said):
    """Every event of a session, on this connection; `unfollow` ends it."""

    type: Literal["follow", "unfollow"]
    session_id: Short
    after: Annotated[
        int | None, Field(ge=0, le=2**53, description="The last `sequence` of the session that this client has seen.")
    ] = None


GONE = "The notebook or program that offered this function has gone."


class OfferedTools:
    """The functions that one socket offers. The last socket that offers is the one the agent calls."""

    def __init__(self, session: Session, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._session = session
        self._send = send
        self._entries: list[dict[str, Any]] = []
        self._seconds: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[ExtraResult]] = {}

    @property
    def timeout(self) -> float:
        """The longest of the offered functions' limits; each has its own below that."""
        return max(self._seconds.values(), default=60.0)

    def schemas(self) -> Sequence[dict[str, Any]]:
        return self._entries

    def offer(self, body: dict[str, Any]) -> list[str]:
        """Replace the offer; return the names. :class:`InvalidRequest` for what cannot be offered."""
        tools = parse(OfferTools, body).tools
        for number, tool in enumerate(tools):
            if tool.input_schema.get("type") != "object":
                where = f"tools.{number}.input_schema"
                raise InvalidRequest(f"{where} must have the type object.", details={where: 'needs "type": "object"'})
        entries = [tool.model_dump(exclude={"timeout"}) for tool in tools]
        check_names(entries)
        self._seconds = {tool.name: tool.timeout for tool in tools}
        self._entries = entries
        if entries:
            self._session.extra_tools = self
        else:
            self.withdraw()
        return [tool.name for tool in tools]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        """Ask the client; an answer that does not come in time is a ``TimeoutError``."""
        answer: asyncio.Future[ExtraResult] = asyncio.get_running_loop().create_future()
        self._waiting[tool_use_id] = answer
        asked = {"type": "tool_call", "tool": name, "tool_use_id": tool_use_id, "arguments": arguments}
        try:
            async with asyncio.timeout(self._seconds.get(name, 60.0)):
                await self._send({**asked, "timestamp": timestamp()})
                return await answer
        finally:
            self._waiting.pop(tool_use_id, None)

    async def result(self, body: dict[str, Any]) -> None:
        """Take a client's answer to a call."""
        found = parse(ToolResult, body)
        waiting = self._waiting.get(found.tool_use_id)
        if waiting is None or waiting.done():
            raise InvalidRequest("No call waits for this result.", hint="It took too long, or the turn was stopped.")
        image = await self._session.uploads.screenshot(found.image) if found.image else None
        if not waiting.done():
            waiting.set_result(ExtraResult(found.text, found.is_error, image))

    def withdraw(self) -> None:
        """The client left: what waits for it fails now, and the agent is no longer offered its functions."""
        if self._session.extra_tools is self:
            self._session.extra_tools = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result(ExtraResult(GONE, is_error=True))
