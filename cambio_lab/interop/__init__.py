"""Other systems' protocols, each an extra that is imported on first use; here is how MCP clients reach the tools.

They use ``/mcp`` of the server, or ``cambio-lab mcp``, which passes on to it. Importing this costs nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..errors import load_optional

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

    from ..client.discovery import Address
    from ..sessions.registry import Registry

Block = dict[str, Any]

CALL_SECONDS = 600.0
INSTRUCTIONS = (
    "Desktops that you see and act on. create_session gives one; look, then act with coordinates of the screenshot you "
    "saw. run_task has the server's own agent work on it. A person can watch, approve and stop in JupyterLab. End the "
    "session when you are done."
)


def add_commands(subcommands: Any) -> None:
    """``cambio-lab mcp``"""
    command = subcommands.add_parser(
        "mcp",
        help="give an MCP client the desktops of the running server",
        description="Speak the Model Context Protocol on standard input and output. The server is found as a notebook "
        "finds it: CAMBIO_LAB_URL and CAMBIO_LAB_TOKEN, else the only one that runs here.",
    )
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    load_optional("mcp", "MCP needs the package mcp.", 'pip install "cambio-lab[mcp]"')
    from ..client.discovery import find_server

    asyncio.run(serve(find_server(None, None)))
    return 0


async def serve(address: Address) -> None:
    """Answer the client on standard input until it leaves."""
    import httpx2
    from mcp.client import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.server.stdio import stdio_server

    options: dict[str, Any] = {"trust_env": not address.loopback, "verify": address.tls() or True}
    async with (
        httpx2.AsyncClient(headers=address.headers, timeout=CALL_SECONDS, **options) as http,
        Client(streamable_http_client(f"{address.url}/mcp", http_client=http)) as remote,
        stdio_server() as (read, write),
    ):
        tools = [tool.model_dump(by_alias=True, exclude_none=True) for tool in (await remote.list_tools()).tools]

        async def call(name: str, values: dict[str, Any], _: str) -> tuple[list[dict[str, Any]], bool]:
            result = await remote.call_tool(name, values)
            return [block.model_dump(by_alias=True, exclude_none=True) for block in result.content], result.is_error

        local = server(lambda: tools, call)
        print(f"cambio-lab mcp: serving {address.url}", file=sys.stderr)
        await local.run(read, write, local.create_initialization_options())


class Endpoint:
    """The ASGI application of ``/mcp``, made by the first request: the package takes a second to load."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._begun = asyncio.Lock()
        self._application: Any = None
        self._running: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    async def application(self) -> Any:
        """Return the application, running. :class:`ModuleNotFoundError` where the package is not installed."""
        async with self._begun:
            if self._application is None:
                manager = await asyncio.to_thread(_manager, self._registry)
                started = asyncio.Event()
                begun = asyncio.create_task(started.wait())
                self._running = asyncio.create_task(self._run(manager, started), name="cambio_lab MCP")
                try:
                    await asyncio.wait({begun, self._running}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    begun.cancel()
                if self._running.done():
                    self._running.result()  # raises what kept it from starting; the next request tries again
                self._application = manager.handle_request
        return self._application

    async def _run(self, manager: Any, started: asyncio.Event) -> None:
        async with manager.run():
            started.set()
            await self._ending.wait()

    async def aclose(self) -> None:
        self._ending.set()
        if self._running is not None:
            await asyncio.wait({self._running})


def _manager(registry: Registry) -> Any:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from .mcp_server import Tools

    tools = Tools(registry)
    return StreamableHTTPSessionManager(server(tools.definitions, tools.call), json_response=True, stateless=True)


def server(
    definitions: Callable[[], list[Block]],
    call: Callable[[str, dict[str, Any], str], Awaitable[tuple[list[Block], bool]]],
) -> Server[Any]:
    """Return an MCP server with these tools."""
    import mcp_types as types
    from mcp.server.lowlevel import Server

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool.model_validate(one) for one in definitions()])

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        base_url = "" if context.request is None else str(context.request.base_url)
        content, is_error = await call(params.name, params.arguments or {}, base_url)
        return types.CallToolResult.model_validate({"content": content, "isError": is_error})

    return Server(
        "cambio_lab",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
