"""A connection to an MCP server, whose tools a session offers to its agent. Lives on the portal's loop."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError, InvalidRequest, ServerUnreachable
from .text import visible

if TYPE_CHECKING:
    from mcp.client import Client

CONNECT_SECONDS = 60.0
_INVALID = re.compile(r"[^a-zA-Z0-9_-]")


class ToolFailed(Exception):
    """The server says that the call failed; its words are for the agent."""


McpTool = tuple[str, str, dict[str, Any], Callable[..., Awaitable[Any]]]
"""Name, description and schema of one tool as a Messages API function, and how to call it."""


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

    async def open(self, prefix: str) -> list[McpTool]:
        """Connect; return the tools, their names made such as the service takes them, after ``prefix``."""
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

    def _offered(self, tool: Any, prefix: str) -> McpTool:
        name = _INVALID.sub("_", prefix + tool.name)[:64]
        schema = {"type": "object", **tool.input_schema}
        return name, tool.description or tool.title or name, schema, partial(self.call, tool.name)

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
            where = self._where if isinstance(self._where, str) else " ".join(self._where)
            words = visible(str(_innermost(error)) or type(error).__name__)
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


def _innermost(error: BaseException) -> BaseException:
    return _innermost(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
