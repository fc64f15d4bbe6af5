"""Functions and MCP servers of this program, offered to the agent: called here, with a time limit."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CambioError, ConfigurationError, InvalidRequest, ServerUnreachable
from . import UserFunction, portal
from .channel import Channel
from .display import shorten, visible
from .message import Message
from .rest import Rest
from .schemas import Description, describe_function
from .screenshot import is_image, put_image

if TYPE_CHECKING:
    from mcp.client import Client

CONNECT_SECONDS = 60.0
_INVALID = re.compile(r"[^a-zA-Z0-9_-]")
F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_SECONDS = 60.0
LONGEST_RESULT = 30_000


class ToolFailed(Exception):
    """The server says that the call failed; its words are for the agent."""


class McpServer:
    """``where`` is the URL of a server, or the command that starts one on standard input and output.

    A task of its own enters and leaves the connection, because the client's scopes belong to one task.
    """

    def __init__(
        self, where: str | Sequence[str], *, headers: Mapping[str, str] | None, env: Mapping[str, str] | None
    ) -> None:
        self._where = where
        self._headers = dict(headers or {})
        self._env = dict(env or {})
        self._client: Client | None = None
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self, prefix: str) -> list[tuple[Description, Callable[..., Awaitable[Any]]]]:
        """Connect; return the tools and how to call them, their names made such as the service takes them."""
        try:
            await asyncio.to_thread(__import__, "mcp.client")
        except ModuleNotFoundError as error:
            raise ConfigurationError("MCP needs the package mcp.", hint='pip install "cambio-lab[mcp]"') from error
        ready: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(ready), name="MCP client")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return [self._offered(tool, prefix) for tool in await ready]
        except BaseException:
            await self.aclose()
            raise

    def _offered(self, tool: Any, prefix: str) -> tuple[Description, Callable[..., Awaitable[Any]]]:
        name = _INVALID.sub("_", prefix + tool.name)[:64]
        schema = {"type": "object", **tool.input_schema}
        return Description(name, tool.description or tool.title or name, schema), partial(self.call, tool.name)

    async def call(self, name: str, /, **arguments: Any) -> str | bytes:
        """Return what the tool says, or the one image that it shows. :class:`ToolFailed` has the server's words."""
        if self._client is None:
            raise ToolFailed("The connection to the MCP server is closed.")
        result = await self._client.call_tool(name, arguments)
        words = "\n".join(block.text if block.type == "text" else f"[{block.type}]" for block in result.content)
        if result.is_error:
            raise ToolFailed(words)
        only = result.content[0] if len(result.content) == 1 else None
        return base64.b64decode(only.data) if only is not None and only.type == "image" else words

    async def aclose(self) -> None:
        """Leave the server; a command that was started ends."""
        self._leave.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=5)
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _serve(self, ready: asyncio.Future[list[Any]]) -> None:
        from mcp.client import Client

        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(Client(await self._transport(stack)))
                found = await client.list_tools()
                self._client = client
                if not ready.done():
                    ready.set_result(found.tools)
                await self._leave.wait()
        except Exception as error:
            if ready.done():
                raise
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            where = self._where if isinstance(self._where, str) else " ".join(self._where)
            words = visible(str(cause) or type(cause).__name__)
            ready.set_exception(ServerUnreachable(f"The MCP server {where} cannot be used: {words}"))
        finally:
            self._client = None

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if not isinstance(self._where, str):
            from mcp.client.stdio import StdioServerParameters

            command, *arguments = self._where
            return StdioServerParameters(command=command, args=arguments, env=self._env)
        if not self._where.startswith(("http://", "https://")):
            raise InvalidRequest(f"{self._where!r} is no URL.", hint="A command is a list: [program, argument, ...].")
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        http = await stack.enter_async_context(httpx2.AsyncClient(headers=self._headers, timeout=600))
        return streamable_http_client(self._where, http_client=http)


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
        self._offered |= {about.name: Offered(about, float(timeout), call) for about, call in found}
        self._offer()
        return [about.name for about, _ in found]

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
