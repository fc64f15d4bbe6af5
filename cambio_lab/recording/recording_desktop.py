"""A desktop that records what the agent asks of it. The agent holds this one; viewers hold the inner one."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from ..desktop.base import Desktop
from ..desktop.delegating import DelegatingDesktop
from ..desktop.machine import FileContent
from ..errors import DesktopError
from . import observations

T = TypeVar("T")
Note = Callable[[dict[str, Any]], Awaitable[None]]


class RecordingDesktop(DelegatingDesktop):
    """Tells ``note`` of each call with its arguments, result and time."""

    def __init__(self, inner: Desktop, note: Note, count: Callable[[], int]) -> None:
        super().__init__(inner)
        self._note = note
        self._count = count

    async def call(self, kind: type[T], method: str, **arguments: Any) -> T:
        record = self._begin(method, arguments)
        began = time.perf_counter()
        try:
            result = await super().call(kind, method, **arguments)
        except BaseException as error:
            await self._fail(record, began, error)
            raise
        await self._end(record, began, observations.encode(result))
        return result

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(path))

    async def _read(self, path: str) -> AsyncGenerator[bytes, None]:
        record = self._begin("read_file", {"path": path})
        began, chunks = time.perf_counter(), []
        try:
            async for chunk in self.inner.read_file(path):
                chunks.append(chunk)
                yield chunk
        except BaseException as error:
            await self._fail(record, began, error)
            raise
        await self._end(record, began, observations.encode(b"".join(chunks)))

    def _begin(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """``at`` is for people; the wall clock may be set back, so calls are ordered by ``number``."""
        named = observations.encode_arguments(arguments)
        return {"method": method, "arguments": named, "at": time.time(), "number": self._count()}

    async def _end(self, record: dict[str, Any], began: float, result: dict[str, Any]) -> None:
        await self._note({**record, "ms": _since(began), "result": result})

    async def _fail(self, record: dict[str, Any], began: float, error: BaseException) -> None:
        if isinstance(error, DesktopError):
            told = observations.encode_error(error)
        else:
            kind = "Unexpected" if isinstance(error, Exception) else "Cancelled"
            told = {"type": kind, "message": "", "hint": ""}
        await self._note({**record, "ms": _since(began), "error": told})


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)
