"""A desktop that notes what was asked of it. The agent holds this one; viewers hold the real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ..desktop.base import Desktop
from ..errors import DesktopError
from . import observations

Note = Callable[[dict[str, Any]], Awaitable[None]]


class RecordingDesktop:
    """Everything of ``desktop``, and ``note`` is told of each call in :data:`~.observations.METHODS`."""

    def __init__(self, desktop: Desktop, note: Note, count: Callable[[], int]) -> None:
        self.recorded = desktop
        """The desktop itself."""
        self._note = note
        self._count = count

    def __getattr__(self, name: str) -> Any:
        if name == "sleep":  # waiting is something the agent does to its desktop, too: a replay need not wait
            return self._noted(name, getattr(self.recorded, name, asyncio.sleep))
        value = getattr(self.recorded, name)
        if name == "read_file":
            return self._read_file
        return self._noted(name, value) if name in observations.METHODS else value

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            record = self._begin(name, args, kwargs)
            began = time.perf_counter()
            try:
                result = await method(*args, **kwargs)
            except BaseException as error:
                await self._fail(record, began, error)
                raise
            await self._end(record, began, observations.encode(result))
            return result

        return call

    async def _read_file(self, path: str) -> AsyncIterator[bytes]:
        stream: Any = self.recorded.read_file(path)  # a coroutine in some desktops, an iterator in others
        record = self._begin("read_file", (path,), {})
        began, chunks = time.perf_counter(), []
        try:
            async for chunk in stream if hasattr(stream, "__aiter__") else await stream:
                chunks.append(chunk)
                yield chunk
        except BaseException as error:
            await self._fail(record, began, error)
            raise
        await self._end(record, began, observations.encode(b"".join(chunks)))

    def _begin(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """``at`` is for people; the wall clock may be set back, so calls are ordered by ``number``."""
        arguments = observations.name_arguments(name, args, kwargs)
        return {"method": name, "arguments": arguments, "at": time.time(), "number": self._count()}

    async def _end(self, record: dict[str, Any], began: float, result: dict[str, Any]) -> None:
        await self._note({**record, "ms": _since(began), "result": result})

    async def _fail(self, record: dict[str, Any], began: float, error: BaseException) -> None:
        if isinstance(error, DesktopError):
            told = observations.encode_error(error)
        else:
            told = {
                "type": "Cancelled" if not isinstance(error, Exception) else "Unexpected",
                "message": "",
                "hint": "",
            }
        await self._note({**record, "ms": _since(began), "error": told})


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
