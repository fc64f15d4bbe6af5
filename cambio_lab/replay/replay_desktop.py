"""A desktop that exists only as a record: the agent gets the recorded results, a viewer the recorded pictures."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..desktop.base import Desktop, DesktopOptions, FileInfo, Picture, ProviderHealth, Settled, Size, VncEndpoint
from ..errors import ActionError, DesktopLost, ReplayDiverged
from ..recording import observations
from ..recording.client_desktop import CLIENT, ClientRecord
from ..recording.contents import Contents, Json

NOT_LIVE = "This is a recorded desktop: it can be looked at, not touched."
UNMATCHED = frozenset({"release_all", "resize"})
"""Housekeeping: whether it happens depends on timing, and nothing is seen of it."""


class ReplayDesktop:
    """What people see of a replayed session. :attr:`for_agent` is what its agent works with."""

    isolated = True
    container_id: str | None = None
    vnc_port: int | None = None

    def __init__(self, contents: Contents, *, pace: float = 0.0, cut: Callable[[], None] | None = None) -> None:
        """``pace`` 0 makes nobody wait, 1 takes as long as it took; ``cut`` is called where a person stopped it."""
        self.desktop_id = f"recording-{contents.manifest['session'].get('id', '')}"
        self.image_digest: str | None = contents.manifest.get("desktop", {}).get("image_digest")
        self.contents = contents
        self.divergence: ReplayDiverged | None = None
        self.cut = cut
        self._size = _size(contents)
        self._find = contents.find
        self._clients = ClientRecord(contents.observations)
        self._calls: list[Json] = []
        self._looks: deque[tuple[int, Json]] = deque()
        """What clients saw: after how many of the agent's calls, and the picture."""
        for call in contents.observations:
            if call.get("by") != CLIENT:
                self._calls += [call] if call["method"] not in UNMATCHED else []
            elif call["method"] == "screenshot":
                self._looks.append((len(self._calls), call["result"]))
        self._position = 0
        self._pace = pace
        self._picture: Picture | None = None
        self._closed = asyncio.Event()

    @property
    def recording(self) -> ReplayDesktop:
        """This one, however it is wrapped: live desktops have no such attribute."""
        return self

    @property
    def for_agent(self) -> Desktop:
        agent_side: Any = _AgentSide(self)
        return agent_side  # type: ignore[no-any-return]

    @property
    def exhausted(self) -> bool:
        """Whether every recorded call was made."""
        return self._position == len(self._calls)

    @property
    def size(self) -> Size:
        return self._size

    async def screenshot(self) -> Picture:
        """What a client saw at this point of the recording; else what the agent saw last, or sees first."""
        while self._looks and self._looks[0][0] <= self._position:
            after, result = self._looks.popleft()
            if after == self._position:
                self._picture = observations.decode(result, self._find)
                break
        return self._now()

    def _now(self) -> Picture:
        if self._picture is None:
            recorded = (call["result"]["picture"] for call in self._calls if "picture" in call.get("result", {}))
            if (first := next(recorded, None)) is None:
                raise ActionError(NOT_LIVE)
            self._picture = observations.decode({"picture": first}, self._find)
        return self._picture

    async def thumbnail(self, width: int = 320) -> Picture:
        return await asyncio.to_thread(_shrink, self._now(), width)

    async def settle(self) -> Settled:
        return Settled()

    async def resize(self, size: Size) -> None:
        raise ActionError(NOT_LIVE)

    def endpoint(self) -> VncEndpoint:
        raise ActionError(NOT_LIVE)

    async def alive(self) -> bool:
        return not self._closed.is_set()

    async def lost(self) -> str:
        await asyncio.Event().wait()  # never by itself
        raise AssertionError

    async def release_all(self) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        self._closed.set()

    # What clients did then, they get again

    async def get_clipboard(self) -> str:
        return str(self._again("get_clipboard", {}))

    async def set_clipboard(self, text: str) -> None:
        self._again("set_clipboard", {"text": text})

    async def list_files(self, path: str = "") -> list[FileInfo]:
        found: list[FileInfo] = self._again("list_files", {"path": path})
        return found

    async def write_file(self, path: str, chunks: AsyncIterator[bytes] | bytes) -> int:
        digest = hashlib.sha256(chunks if isinstance(chunks, bytes) else b"")
        if not isinstance(chunks, bytes):
            async for chunk in chunks:
                digest.update(chunk)
        return int(self._again("write_file", {"path": path, "content": digest.hexdigest()}))

    async def read_file(self, path: str) -> AsyncIterator[bytes]:
        data = self._again("read_file", {"path": path})

        async def pieces() -> AsyncIterator[bytes]:
            yield data

        return pieces()

    def _again(self, method: str, arguments: Json) -> Any:
        result = self._clients.take(method, arguments)
        if result is None:
            raise ActionError(f"{NOT_LIVE} The recording has no such {method}.")
        return observations.decode(result, self._find)

    def __getattr__(self, name: str) -> Any:
        if name in observations.METHODS:

            async def refuse(*args: Any, **kwargs: Any) -> Any:
                raise ActionError(NOT_LIVE)

            return refuse
        raise AttributeError(name)

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
                await asyncio.Event().wait()  # until whoever stopped it lets go, as then
            if call["error"].get("type") == "Unexpected":
                raise RuntimeError("recorded failure")
            raise observations.decode_error(call["error"])
        result = observations.decode(call["result"], self._find)
        if isinstance(result, Picture):
            self._picture = result
        return result

    def _check(self, method: str, arguments: Json) -> None:
        said = f"{method}({', '.join(f'{name}={value!r}' for name, value in arguments.items() if value is not None)})"
        if self.exhausted:
            self.divergence = ReplayDiverged(f"the run calls {said}, the recording ends after {self._position} calls")
            return
        call = self._calls[self._position]
        if (call["method"], call["arguments"]) != (method, arguments):
            step = f"step {call['step']}" if call.get("step") else f"call {self._position + 1}"
            self.divergence = ReplayDiverged(
                f"at {step} the run calls {said[:300]}, the recording has {call['method']} {call['arguments']!r:.300}"
            )


class _AgentSide:
    """The recorded calls, one after the other."""

    def __init__(self, desktop: ReplayDesktop) -> None:
        self._desktop = desktop

    def __getattr__(self, name: str) -> Any:
        if name == "read_file":
            return self._read_file
        if name not in observations.METHODS or name in UNMATCHED:
            return getattr(self._desktop, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._desktop.replay(name, observations.name_arguments(name, args, kwargs))

        return call

    async def _read_file(self, path: str) -> AsyncIterator[bytes]:
        yield await self._desktop.replay("read_file", {"path": path})


class ReplayProvider:
    """Gives one session its recorded desktop."""

    name = "recording"
    unclean = False

    def __init__(self, desktop: ReplayDesktop) -> None:
        self._desktop = desktop

    async def start(self) -> None:
        """Nothing to prepare."""

    async def acquire(self, session_id: str, options: DesktopOptions) -> Desktop:
        desktop: Any = self._desktop
        return desktop  # type: ignore[no-any-return]

    async def adopt(self, desktop_id: str, session_id: str) -> Desktop | None:
        return None

    async def reap(self, keep: frozenset[str]) -> list[str]:
        return []

    async def health(self) -> ProviderHealth:
        return ProviderHealth(self.name, True, "a recording")

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        await self._desktop.close()


def _size(contents: Contents) -> Size:
    display = contents.manifest.get("desktop", {}).get("display")
    if isinstance(display, list) and len(display) == 2:
        return Size(*display)
    return Size(1280, 800)


def _shrink(picture: Picture, width: int) -> Picture:
    from PIL import Image

    with Image.open(io.BytesIO(picture.data)) as image:
        height = max(1, round(image.height * width / image.width))
        out = io.BytesIO()
        image.convert("RGB").resize((width, height)).save(out, "JPEG", quality=80)
    return Picture(out.getvalue(), "image/jpeg", width, height)
