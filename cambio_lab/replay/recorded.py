"""What surrounds the agent in a replay: a desktop, approvals and client tools that exist only as a recording."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from ..agent.extras import NAME, RESERVED, ExtraResult
from ..agent.gate import Gate
from ..desktop import CallDesktop, DelegatingDesktop
from ..desktop.base import Desktop, Screenshot, Settled, Size, VncEndpoint
from ..desktop.files import FileContent, Listing
from ..errors import ActionError, DesktopLost, ReplayDiverged
from ..recording import Contents, Json, calls
from ..recording.calls import CLIENT
from ..recording.placeholders import Mask
from ..recording.rows import draw

RECORDING = "recording"
"""The kind of a desktop that is a recording."""
NOT_LIVE = "This is a recorded desktop: it can be looked at, not touched."
UNMATCHED = frozenset({"release_all", "resize"})
"""Housekeeping: whether it happens depends on timing, and nothing is seen of it."""


class ReplayDesktop(CallDesktop):
    """What clients see of a replayed session. :attr:`for_agent` is what its agent works with."""

    isolated = True
    recorded = True

    def __init__(self, contents: Contents, *, pace: float = 0.0, mask: Mask | None = None) -> None:
        """``pace`` 0 takes no time, 1 the recorded time; :attr:`cut` is called where a person stopped a call.

        Clients give the values of secrets as they did then; ``mask`` turns them into the recorded placeholders.
        """
        self.desktop_id = f"recording-{contents.manifest['session'].get('id', '')}"
        self.image_digest = contents.manifest.get("desktop", {}).get("image_digest")
        self.contents = contents
        self.divergence: ReplayDiverged | None = None
        self.cut: Callable[[], None] | None = None
        self._mask = mask or Mask()
        self._size = Size(*contents.manifest.get("desktop", {}).get("display") or (1280, 800))
        self._find = contents.find
        self._client_calls = [call for call in contents.observations if call.get("by") == CLIENT]
        """Each is answered once."""
        self._calls: list[Json] = []
        self._looks: deque[tuple[int, Json]] = deque()
        """What clients saw: after how many of the agent's calls, and the screenshot."""
        for call in contents.observations:
            if call.get("by") is None:
                self._calls += [call] if call["method"] not in UNMATCHED else []
            elif call["method"] == "screenshot":
                self._looks.append((len(self._calls), call["result"]))
        self._position = 0
        self._pace = pace
        self._screenshot: Screenshot | None = None
        self._closed = asyncio.Event()

    @property
    def for_agent(self) -> Desktop:
        return _AgentSide(self)

    @property
    def has_browser(self) -> bool:
        return bool(self.contents.manifest.get("desktop", {}).get("browser", False))

    @property
    def size(self) -> Size:
        return self._size

    async def screenshot(self) -> Screenshot:
        """What a client saw at this point of the recording; else what the agent saw last, or sees first."""
        while self._looks and self._looks[0][0] <= self._position:
            after, result = self._looks.popleft()
            if after == self._position:
                self._screenshot = calls.decode(result, self._find)
                break
        return self._now()

    def _now(self) -> Screenshot:
        if self._screenshot is None:
            recorded = (call["result"]["picture"] for call in self._calls if "picture" in call.get("result", {}))
            if (first := next(recorded, None)) is None:
                raise ActionError(NOT_LIVE)
            self._screenshot = calls.decode({"picture": first}, self._find)
        return self._screenshot

    async def thumbnail(self, width: int = 320) -> Screenshot:
        now = self._now()
        width = min(width, now.width)
        data = await asyncio.to_thread(draw, now.data, (), width, 80)
        return Screenshot(data, "image/jpeg", width, max(1, round(now.height * width / now.width)))

    async def call(self, method: str, **arguments: Any) -> Any:
        raise ActionError(NOT_LIVE)

    async def settle(self) -> Settled:
        return Settled()

    def endpoint(self) -> VncEndpoint:
        raise ActionError(NOT_LIVE)

    async def alive(self) -> bool:
        return not self._closed.is_set()

    async def lost(self) -> str:
        await asyncio.Event().wait()  # it never dies by itself
        raise AssertionError

    async def release_all(self) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        self._closed.set()

    # What clients did when it was recorded, they may do again
    async def get_clipboard(self) -> str:
        return str(self._again("get_clipboard", {}))

    async def set_clipboard(self, text: str) -> None:
        self._again("set_clipboard", {"text": self._mask.text(text)})

    async def list_files(self, path: str = "") -> Listing:
        return Listing(self._again("list_files", {"path": self._mask.text(path)}))

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        digest, masked = hashlib.sha256(), self._mask.stream()
        if isinstance(chunks, bytes):
            digest.update(masked.feed(chunks))
        else:
            async for chunk in chunks:
                digest.update(masked.feed(chunk))
        digest.update(masked.end())
        arguments = {"path": self._mask.text(path), "content": digest.hexdigest()}
        return int(self._again("write_file", arguments))

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(path))

    async def _read(self, path: str) -> AsyncGenerator[bytes, None]:
        yield self._again("read_file", {"path": self._mask.text(path)})

    def _again(self, method: str, arguments: Json) -> Any:
        """Return the result of the first such call of a client that was not answered yet."""
        for index, call in enumerate(self._client_calls):
            if (call["method"], call["arguments"]) == (method, arguments):
                return calls.decode(self._client_calls.pop(index)["result"], self._find)
        raise ActionError(f"{NOT_LIVE} The recording has no such {method}.")

    async def replay(self, method: str, arguments: Json) -> Any:
        """The recorded result of the next call, which must be this one."""
        if self.divergence is None:
            self._check(method, arguments)
        if self.divergence is not None:
            raise DesktopLost(self.divergence.message)
        call = self._calls[self._position]
        self._position += 1
        await asyncio.sleep(self._pace * call["ms"] / 1000)
        if "error" in call:
            if call["error"].get("type") == "Cancelled":
                if self.cut is not None:
                    self.cut()
                await asyncio.Event().wait()  # until the stop cancels it
            if call["error"].get("type") == "Unexpected":
                raise RuntimeError("recorded failure")
            raise calls.decode_error(call["error"])
        result = calls.decode(call["result"], self._find)
        if isinstance(result, Screenshot):
            self._screenshot = result
        return result

    def _check(self, method: str, arguments: Json) -> None:
        said = f"{method}({', '.join(f'{name}={value!r}' for name, value in arguments.items() if value is not None)})"
        if self._position == len(self._calls):
            self.divergence = ReplayDiverged(f"the run calls {said}, the recording ends after {self._position} calls")
            return
        call = self._calls[self._position]
        if (call["method"], call["arguments"]) != (method, arguments):
            step = f"step {call['step']}" if call.get("step") else f"call {self._position + 1}"
            self.divergence = ReplayDiverged(
                f"at {step} the run calls {said[:300]}, the recording has {call['method']} {call['arguments']!r:.300}"
            )


class _AgentSide(DelegatingDesktop):
    """The recorded calls of the agent, one after the other."""

    def __init__(self, desktop: ReplayDesktop) -> None:
        super().__init__(desktop)
        self._replay = desktop.replay

    async def call(self, method: str, **arguments: Any) -> Any:
        return await self._replay(method, calls.encode_arguments(arguments))

    async def release_all(self) -> None:
        await self.inner.release_all()

    async def resize(self, size: Size) -> None:
        await self.inner.resize(size)

    def read_file(self, path: str) -> FileContent:
        return FileContent(lambda content: self._read(path))

    async def _read(self, path: str) -> AsyncGenerator[bytes, None]:
        yield await self._replay("read_file", {"path": path})


TIMEOUT = 300.0


class RecordedGate(Gate):
    """Asks for approval exactly where the recording did, because the policy may have changed during the run."""

    def __init__(self, contents: Contents) -> None:
        super().__init__("never", TIMEOUT)
        asked = (event for event in contents.events if event["kind"] == "ApprovalRequested")
        self._asked = frozenset(event["tool_use_id"] for event in asked)

    def needs_approval(self, tool_use_id: str, tool: str, arguments: Mapping[str, Any]) -> bool:
        return tool_use_id in self._asked


class RecordedTools:
    """The functions that a client offered: each call gets its recorded result."""

    timeout = TIMEOUT

    def __init__(self, contents: Contents) -> None:
        self._results: dict[str, Json] = {}
        self._find = contents.find
        # of the definitions in the first request; the service's own tools have a type
        tools = contents.manifest.get("request", {}).get("tools")
        functions = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        offered = {str(tool.get("name")) for tool in functions if "type" not in tool}
        for event in contents.events:
            if event["kind"] == "ToolStarted" and event["toolset"] is None:
                offered.add(event["tool"])
            elif event["kind"] == "ToolFinished":
                self._results[event["tool_use_id"]] = event
        self._names = sorted(name for name in offered - RESERVED if NAME.match(name))

    def __bool__(self) -> bool:
        return bool(self._names)

    def schemas(self) -> Sequence[dict[str, Any]]:
        return [{"name": name, "description": "", "input_schema": {"type": "object"}} for name in self._names]

    async def call(self, name: str, arguments: dict[str, Any], *, tool_use_id: str) -> ExtraResult:
        event = self._results.get(tool_use_id)
        if event is None:
            return ExtraResult(f"The recording has no result of {name}.", is_error=True)
        image, size = event.get("image"), (event["width"], event["height"])
        data = self._find(image["sha256"]) if image else None
        shown = Screenshot(data, image["media_type"], *size) if image and data else None
        return ExtraResult(event["text"], event["is_error"], shown)
