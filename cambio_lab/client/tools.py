"""Python functions of the notebook, offered to the agent: called here, in the kernel, with a time limit."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import typing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from ..errors import CambioError, InvalidRequest
from .channel import Channel
from .mcp import McpServer
from .message import Message
from .portal import UserFunction, portal
from .rest import Rest
from .screenshot import is_image, put_image
from .text import shorten, visible

if typing.TYPE_CHECKING:
    from pydantic import BaseModel

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SECONDS = 60.0
LONGEST_RESULT = 30_000
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_GOOGLE = re.compile(r"^\s*(?:Args|Arguments|Parameters):\s*$", re.MULTILINE)
_ITEM = re.compile(r"^\s*(?::param\s+)?(?:\w+\s+)?(\w+)(?:\s*\([^)]*\))?\s*:\s*(.+)$")


@dataclass(frozen=True)
class Description:
    """``name``, ``description``, ``input_schema`` as in a Messages API tool; ``model``, if any, checks arguments."""

    name: str
    description: str
    input_schema: dict[str, Any]
    model: type[BaseModel] | None = None

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``given`` as the function wants it; raise ``TypeError`` in words for the agent."""
        from pydantic import ValidationError

        if self.model is None:  # the other side checks
            return dict(given)
        try:
            checked = self.model.model_validate_json(json.dumps(dict(given)), strict=True)
        except ValidationError as error:
            wrong = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
            raise TypeError("; ".join(wrong)) from None
        fields = type(checked).model_fields
        return {str(fields[name].alias): getattr(checked, name) for name in checked.model_fields_set}


def describe_function(function: Callable[..., Any], *, name: str = "", description: str = "") -> Description:
    """Return what the agent is told about ``function``.

    Raises :class:`~cambio_lab.errors.InvalidRequest` when a parameter has no type or one that JSON cannot carry, or
    when the function has no docstring and no ``description`` is given.
    """
    from pydantic import ConfigDict, create_model
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

    name = name or function.__name__
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot be a tool's name.", hint="Letters, digits, _ and -, at most 64.")
    document = inspect.getdoc(function) or ""
    description = description or _GOOGLE.split(document)[0].partition(":param")[0].strip()
    if not description:
        raise InvalidRequest(f"{name} has no docstring.", hint="The agent needs to know what it does: write one line.")
    try:
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **_fields(function, name, document))
        schema = _untitled(model.model_json_schema())
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema) as error:
        raise InvalidRequest(
            f"{name} has a parameter of a type that JSON cannot carry: {str(error).splitlines()[0]}",
            hint="Use str, int, float, bool, list, dict, Literal, an Enum, a dataclass, or a union of these.",
        ) from None
    return Description(name, description, {"type": "object", "properties": {}, "required": [], **schema}, model)


def _fields(function: Callable[..., Any], name: str, document: str) -> dict[str, Any]:
    """Return pydantic fields for the parameters; aliases, because a parameter may have any name."""
    from pydantic import Field

    about = _parameters(document)
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise InvalidRequest(f"{name}({parameter}) cannot be offered.", hint="Use named parameters only.")
        if parameter.name not in hints:
            raise InvalidRequest(f"{name}: the parameter {parameter.name} has no type.", hint="Annotate it.")
        hint = hints[parameter.name]
        said = [word for word in typing.get_args(hint)[1:] if isinstance(word, str)]
        text = about.get(parameter.name) or (said[0] if typing.get_origin(hint) is Annotated and said else None)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[f"field_{number}"] = (hint, Field(default, alias=parameter.name, description=text))
    return fields


def _untitled(schema: Any) -> Any:
    """Return the schema without pydantic's titles, which repeat the names; a property may be called ``title``."""
    if isinstance(schema, list):
        return [_untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    return {key: _untitled(value) for key, value in kept.items()}


def _parameters(document: str) -> dict[str, str]:
    """Return the descriptions in a Google-style ``Args:`` section or in ``:param name:`` lines."""
    section = _GOOGLE.split(document, maxsplit=1)
    lines = section[1].splitlines() if len(section) == 2 else [x for x in document.splitlines() if ":param" in x]
    found: dict[str, str] = {}
    for line in lines:
        if line and not line[0].isspace() and not line.startswith(":param"):
            break  # the next section
        if match := _ITEM.match(line):
            found[match[1]] = match[2].strip()
    return found


@dataclass(frozen=True)
class Offered:
    """One function as it is offered."""

    description: Description
    timeout: float
    run: Callable[..., Awaitable[Any]]

    def entry(self) -> dict[str, Any]:
        about = self.description
        words = {"name": about.name, "description": about.description}
        return {**words, "input_schema": about.input_schema, "timeout": self.timeout}


class Tools:
    """``session.tools.add(function)``, also as a decorator. The offer is renewed whenever the connection is."""

    def __init__(self, channel: Channel, rest: Rest) -> None:
        self._rest = rest
        self._offered: dict[str, Offered] = {}
        self._accepted: dict[str, Offered] = {}
        self._pending: list[tuple[dict[str, Offered], Future[Message]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._servers: list[McpServer] = []
        self._channel = channel
        channel.handle = self._handle
        channel.on_connect = lambda: [self._request()] if self._offered else []

    def add(self, function: F, *, name: str = "", description: str = "", timeout: float = DEFAULT_SECONDS) -> F:
        """Offer ``function`` to the agent from its next request on; return it unchanged.

        Parameters are annotated (str, int, float, bool, list, dict, Literal, Enum, dataclasses, unions); the docstring
        tells the agent what it does. An ``async`` function runs on the loop of the cell that added it, another one in
        a thread. What it returns is given to the agent as text, or as an image if it is one (PIL's, or the bytes of a
        file), an exception as an error; after ``timeout`` seconds
        the agent goes on without it. Raises :class:`~cambio_lab.errors.InvalidRequest` when it cannot be described;
        what the server says against it is raised by the next message.
        """
        about = describe_function(function, name=name, description=description)
        if timeout <= 0:
            raise InvalidRequest("timeout must be positive.")
        self._offered[about.name] = Offered(about, float(timeout), UserFunction(function))
        self._offer()
        return function

    async def add_mcp(
        self,
        server: str | Sequence[str],
        *,
        prefix: str = "",
        headers: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = DEFAULT_SECONDS,
    ) -> list[str]:
        """Offer the tools of an MCP server to the agent; return their names.

        ``server`` is a URL (streamable HTTP, sent ``headers``), or a command as a list (standard input and output, with
        ``env`` added). The kernel holds the connection until the session is left; calls are approved and recorded as
        those of functions. A result is text or one image; else content is named by its type. Needs ``cambio-lab[mcp]``.
        """
        connection = McpServer(server, headers=headers, env=env)
        found = await portal.call(connection.open(prefix))
        self._servers.append(connection)
        for tool, description, schema, call in found:
            self._offered[tool] = Offered(Description(tool, description, schema), float(timeout), call)
        self._offer()
        return [tool for tool, *_ in found]

    async def aclose(self) -> None:
        """Leave the MCP servers; belongs to the portal's loop."""
        servers, self._servers = self._servers, []
        for server in servers:
            await server.aclose()

    def remove(self, name: str | Callable[..., Any]) -> None:
        """Withdraw a function by its name or itself."""
        del self._offered[name if isinstance(name, str) else name.__name__]
        self._offer()

    def __iter__(self) -> Iterator[str]:
        return iter(self._offered)

    def __len__(self) -> int:
        return len(self._offered)

    def __repr__(self) -> str:
        return f"Tools({', '.join(self._offered) or 'none'})"

    def _request(self) -> dict[str, Any]:
        return {"type": "offer_tools", "tools": [offered.entry() for offered in self._offered.values()]}

    def _offer(self) -> None:
        """Tell the server without waiting; the next message waits, so it finds the offer made."""
        answer = portal.submit(self._channel.ask(self._request(), lambda found: found.type == "tools_offered"))
        self._pending.append((dict(self._offered), answer))

    async def settled(self) -> None:
        """Wait for the server's answers to offers. Raises its refusal and goes back to what it had accepted."""
        while self._pending:
            offered, answer = self._pending.pop(0)
            try:
                await asyncio.wrap_future(answer)
            except CambioError:
                self._offered = dict(self._accepted)
                raise
            self._accepted = offered

    def _handle(self, message: Message) -> bool:
        if message.type != "tool_call":
            return False
        task = asyncio.create_task(self._answer(message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True

    async def _answer(self, message: Message) -> None:
        value, is_error = await self.call(message)
        shown: dict[str, Any] = {"is_error": is_error}
        try:
            if is_image(value):
                shown["image"] = await put_image(self._rest, f"/sessions/{self._channel.session_id}", value)
                value = f"The image that {message.tool} returned:"
        except CambioError as error:  # the server does not take it; the agent hears why
            value, shown["is_error"] = error.describe(), True
        shown["text"] = shorten(visible(as_text(value)), LONGEST_RESULT)
        await self._channel.send({"type": "tool_result", "tool_use_id": message.raw.get("tool_use_id"), **shown})

    async def call(self, message: Message) -> tuple[Any, bool]:
        """Call the function that a ``tool_call`` names; return its result, and whether that is an error."""
        offered = self._offered.get(message.tool)
        if offered is None:
            return f"The notebook no longer offers {message.tool}.", True
        try:
            arguments = offered.description.arguments(message.arguments)
            async with asyncio.timeout(offered.timeout):
                return await offered.run(**arguments), False
        except TimeoutError:
            return f"{message.tool} took longer than {offered.timeout:g} seconds; its result is not used.", True
        except Exception as error:  # whatever a user's function raises is the agent's to read
            return f"{type(error).__name__}: {error}", True


def as_text(value: Any) -> str:
    """Return a function's result as the agent reads it: text as it is, JSON where it fits, else ``str``."""
    if isinstance(value, str):
        return value
    if value is None:
        return "Done; the function returned nothing."
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
