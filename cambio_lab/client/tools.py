"""Python functions of the notebook, offered to the agent: called here, in the kernel, with a time limit."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CambioError, InvalidRequest
from ..jupyter.record import shorten
from .action import visible
from .channel import Channel
from .message import Message
from .portal import portal
from .schema import Description, describe_function

if TYPE_CHECKING:
    from .session import Session

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SECONDS = 60.0
LONGEST_RESULT = 30_000


@dataclass(frozen=True)
class Offered:
    """One function as it is offered."""

    function: Callable[..., Any]
    description: Description
    timeout: float
    loop: asyncio.AbstractEventLoop | None
    context: contextvars.Context

    def entry(self) -> dict[str, Any]:
        about = self.description
        return {
            "name": about.name,
            "description": about.description,
            "input_schema": about.input_schema,
            "timeout": self.timeout,
        }


class Tools:
    """``session.tools.add(function)``, also as a decorator. The offer is renewed whenever the connection is."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._offered: dict[str, Offered] = {}
        self._accepted: dict[str, Offered] = {}
        self._pending: list[tuple[dict[str, Offered], Future[None]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._channel: Channel | None = None

    def add(self, function: F, *, name: str = "", description: str = "", timeout: float = DEFAULT_SECONDS) -> F:
        """Offer ``function`` to the agent from its next request on; returns it unchanged.

        Parameters are annotated (str, int, float, bool, list, dict, Literal, Enum, unions); the docstring tells the
        agent what it does. An ``async`` function runs on the loop of the cell that added it, another one in a thread.
        What it returns is given to the agent as text, an exception as an error; after ``timeout`` seconds it is
        given up. Raises :class:`~cambio_lab.errors.InvalidRequest` when it cannot be described; what the server
        says against it is raised by the next message.
        """
        about = describe_function(function, name=name, description=description)
        if timeout <= 0:
            raise InvalidRequest("timeout must be positive.")
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        offered = Offered(function, about, float(timeout), loop, contextvars.copy_context())
        self._offered[about.name] = offered
        self._offer()
        return function

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

    def attach(self, channel: Channel) -> None:
        """Let ``channel`` carry offers and calls."""
        self._channel = channel
        channel.handle = self._handle
        channel.on_connect = self._requests

    def _requests(self) -> list[dict[str, Any]]:
        if not self._offered:
            return []
        return [{"type": "offer_tools", "tools": [offered.entry() for offered in self._offered.values()]}]

    def _offer(self) -> None:
        """Tell the server without waiting; the next message waits, so it finds the offer made."""
        offered = dict(self._offered)
        request = {"type": "offer_tools", "tools": [offer.entry() for offer in offered.values()]}
        self._pending.append((offered, portal.submit(self._ask(request))))

    async def _ask(self, request: dict[str, Any]) -> None:
        assert self._channel is not None
        await self._channel.ask(request, lambda message: message.type == "tools_offered")

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
        text, is_error = await self._call(message)
        assert self._channel is not None
        await self._channel.send(
            {
                "type": "tool_result",
                "tool_use_id": message.raw.get("tool_use_id"),
                "text": shorten(visible(text), LONGEST_RESULT),
                "is_error": is_error,
            }
        )

    async def _call(self, message: Message) -> tuple[str, bool]:
        offered = self._offered.get(message.tool)
        if offered is None:
            return f"The notebook no longer offers {message.tool}.", True
        try:
            arguments = offered.description.arguments(message.arguments)
            async with asyncio.timeout(offered.timeout):
                return as_text(await _run(offered, arguments)), False
        except TimeoutError:
            return f"{message.tool} took longer than {offered.timeout:g} seconds and was given up.", True
        except Exception as error:  # whatever a user's function raises is the agent's to read
            return f"{type(error).__name__}: {error}", True


async def _run(offered: Offered, arguments: dict[str, Any]) -> Any:
    if not inspect.iscoroutinefunction(offered.function):
        return await asyncio.to_thread(offered.context.copy().run, lambda: offered.function(**arguments))
    if offered.loop is None or offered.loop.is_closed():
        return await offered.function(**arguments)
    future = asyncio.run_coroutine_threadsafe(offered.function(**arguments), offered.loop)
    return await asyncio.wrap_future(future)


def as_text(value: Any) -> str:
    """A function's result as the agent reads it: text as it is, JSON where it fits, else ``str``."""
    if isinstance(value, str):
        return value
    if value is None:
        return "Done; the function returned nothing."
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)
